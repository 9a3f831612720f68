// Package relay is the switch in front of a node's WireGuard devices: one UDP port for all slices of the node, and, on
// a gateway, for the nodes behind it, whose packets it forwards without being able to read them.
//
// It adds no header and holds no key. A WireGuard handshake names its responder by mac1, which is keyed with the
// responder's public key, and every later message carries a receiver index that was seen being chosen:
//
//	initiation  sender=S          mac1(key of the responder)   → by key: a device here, or a target to relay to
//	response    sender=R recv=S   mac1(key of the initiator)   → by index S
//	cookie               recv=S                                → by index
//	data                 recv=R                                → by index
//
// So the packets of unmodified WireGuard, from the kernel or from userspace, pass both ways, through NAT.
//
// The parts: message.go reads packets, table.go decides where each goes, path.go decides over which of a peer's paths
// a handshake is tried and when a relayed session is to be moved to a direct path; they are pure: packets, events and
// the time go in, decisions come out. reader.go, socket_linux.go and switch.go do the work.
//
// Anything that is not WireGuard, names nobody known, or carries an unknown index is counted and dropped; the switch
// never answers anything itself, and so cannot be made to amplify.
package relay
