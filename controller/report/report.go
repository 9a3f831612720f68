// Package report reads what nodes report to their controller, within limits and strictly: a report comes from another
// machine, and what is in it reaches other clusters. It does no I/O.
package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"seaway.dev/seaway/fleet"
)

// MaxSize is the most bytes that a report may have.
const MaxSize = 4 << 20

// Limits of a report's lists.
const (
	maxAddrs       = 16
	maxKeys        = 1024
	maxAttachments = 1024 // a node has a few hundred pods at most
	maxPeers       = 100000
	maxProblems    = 256
	maxCarrying    = 4096
	maxText        = 4096 // of one reason, message or name
	maxNodeID      = 63 + 1 + 253
	maxDistance    = 64
)

// Parse reads a report. Unknown fields are passed over: an agent of a newer Seaway may add some within a version.
func Parse(body []byte) (*fleet.Report, error) {
	if len(body) > MaxSize {
		return nil, fmt.Errorf("report of %d bytes, limit %d", len(body), MaxSize)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	rep := new(fleet.Report)
	if err := dec.Decode(rep); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("report: something follows it")
	}
	switch {
	case rep.Version < 1 || rep.Version > fleet.WireVersion:
		return nil, fmt.Errorf("report of version %d, this controller reads up to %d; upgrade the controller first", rep.Version, fleet.WireVersion)
	case rep.Node == "" || len(rep.Node) > 253:
		return nil, fmt.Errorf("report without a node's name")
	case rep.MTU < 0 || rep.MTU > 65535:
		return nil, fmt.Errorf("report with MTU %d", rep.MTU)
	case len(rep.Addrs) > maxAddrs || len(rep.Keys) > maxKeys || len(rep.Attachments) > maxAttachments || len(rep.Peers) > maxPeers || len(rep.Problems) > maxProblems || len(rep.Carrying) > maxCarrying || len(rep.Sights) > maxPeers:
		return nil, fmt.Errorf("report too long: %d addresses, %d keys, %d attachments, %d peers, %d problems",
			len(rep.Addrs), len(rep.Keys), len(rep.Attachments), len(rep.Peers), len(rep.Problems))
	}
	return rep, check(rep)
}

func check(rep *fleet.Report) error {
	if i := slices.IndexFunc(rep.Addrs, func(a netip.Addr) bool {
		return !a.IsValid() || a.Is4In6() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast()
	}); i >= 0 {
		return fmt.Errorf("report with address %v, at which nobody can reach the node", rep.Addrs[i])
	}
	for slice, k := range rep.Keys {
		if k.IsZero() || slice == "" || len(slice) > 63 {
			return fmt.Errorf("report with an empty key or slice name")
		}
	}
	for _, s := range rep.Sights {
		if len(s.Node) > maxNodeID || s.Distance < 0 || s.Distance > maxDistance {
			return fmt.Errorf("report with a sight of node %.80q at distance %d", s.Node, s.Distance)
		}
	}
	for _, a := range rep.Attachments {
		if len(a.Reason) > maxText || len(a.Message) > maxText || len(a.Pod) > 253 || len(a.Namespace) > 63 {
			return fmt.Errorf("report with an attachment whose texts are too long")
		}
	}
	return nil
}

// Lean is the part of a report that decisions depend on: without counters, times and whatever else changes all the
// time. Reports that say the same are equal.
func Lean(rep *fleet.Report) *fleet.Report {
	out := &fleet.Report{Version: rep.Version, Node: rep.Node, Addrs: rep.Addrs, Port: rep.Port, MTU: rep.MTU, Keys: rep.Keys, Sights: rep.Sights, Purged: rep.Purged}
	for _, a := range rep.Attachments {
		out.Attachments = append(out.Attachments, fleet.Attachment{
			PodUID: a.PodUID, Namespace: a.Namespace, Pod: a.Pod, Slice: a.Slice, Attached: a.Attached, Reason: a.Reason, Message: a.Message,
		})
	}
	slices.SortFunc(out.Attachments, func(a, b fleet.Attachment) int { return strings.Compare(a.PodUID, b.PodUID) })
	return out
}
