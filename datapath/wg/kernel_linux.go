package wg

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"seaway.dev/seaway/datapath/relay"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// Kernel drives the kernel's WireGuard devices. A device is made in the process's namespace, where its UDP socket
// stays, and moved into the slice's. Its peers' endpoints are loopback sockets (see [forwarder]) so that the node
// keeps its one public port.
type Kernel struct {
	log *slog.Logger

	mu      sync.Mutex
	devices map[string]*kernelDevice
}

type kernelDevice struct {
	path, link string
	ns         nsID
	key        PrivateKey
	bind       *relay.Port
	forward    *forwarder
}

var _ Driver = (*Kernel)(nil)

// KernelHasWireGuard tells whether this kernel can make WireGuard devices, by making one. The error says why not.
func KernelHasWireGuard() error {
	name := fmt.Sprintf("swprobe%d", time.Now().UnixNano()%1e6)
	l := &netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if err := netlink.LinkAdd(l); err != nil {
		return fmt.Errorf("make a WireGuard device: %w", err)
	}
	return netlink.LinkDel(l)
}

// NewKernel returns a driver for the kernel's devices.
func NewKernel(log *slog.Logger) *Kernel {
	return &Kernel{log: log, devices: map[string]*kernelDevice{}}
}

// Name implements [Driver].
func (*Kernel) Name() string { return "kernel" }

// Apply implements [Driver].
func (k *Kernel) Apply(want plan.Device, key PrivateKey, bind *relay.Port) (changes int, err error) {
	ns, id, err := namespace(want.NetNS)
	if err != nil {
		return 0, fmt.Errorf("slice %s: %w", want.Slice, err)
	}
	defer ns.Close()
	if other := k.sharing(want); other != "" {
		return 0, fmt.Errorf("slice %s: the kernel's devices cannot share a link, and %s has it: a node with this driver has one generation of keys", want.Slice, other)
	}
	d := k.get(want.Name())
	if d != nil && (d.path != want.NetNS || d.link != want.Link || d.ns != id || d.key != key || d.bind != bind || !hasLink(ns, want.Link)) {
		if err := k.Remove(want.Name()); err != nil {
			return 0, err
		}
		d, changes = nil, 1
	}
	if d == nil {
		d = &kernelDevice{path: want.NetNS, link: want.Link, ns: id, key: key, bind: bind}
		if err := d.create(ns); err != nil {
			return changes, fmt.Errorf("slice %s: %w", want.Slice, err)
		}
		k.mu.Lock()
		k.devices[want.Name()] = d
		k.mu.Unlock()
		changes++
	}
	n, err := dressLink(ns, want)
	changes += n
	if err == nil {
		n, err = d.setPeers(ns, want.Peers)
		changes += n
	}
	if err != nil {
		return changes, fmt.Errorf("slice %s: %w", want.Slice, err)
	}
	return changes, nil
}

// sharing names another device that has the link which a device is to have.
func (k *Kernel) sharing(want plan.Device) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, d := range k.devices {
		if name != want.Name() && d.path == want.NetNS && d.link == want.Link {
			return name
		}
	}
	return ""
}

// Settle implements [Driver]: no slice has more than one device.
func (k *Kernel) Settle() {}

func (k *Kernel) get(slice string) *kernelDevice {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.devices[slice]
}

func hasLink(ns netns.NsHandle, name string) bool {
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return false
	}
	defer h.Close()
	_, err = h.LinkByName(name)
	return err == nil
}

// create makes the device, or takes over the one that a predecessor left, and puts the forwarder in front of it.
func (d *kernelDevice) create(ns netns.NsHandle) error {
	if !hasLink(ns, d.link) {
		l := &netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("sw%d", time.Now().UnixNano()%1e9)}}
		if err := netlink.LinkAdd(l); err != nil {
			return fmt.Errorf("make a WireGuard device: %w", err)
		}
		if err := netlink.LinkSetNsFd(l, int(ns)); err != nil {
			_ = netlink.LinkDel(l)
			return fmt.Errorf("move the device into its namespace: %w", err)
		}
		h, err := netlink.NewHandleAt(ns)
		if err == nil {
			err = h.LinkSetName(l, d.link)
			h.Close()
		}
		if err != nil {
			return fmt.Errorf("name the device %s: %w", d.link, err)
		}
	}
	var port int
	err := d.control(ns, func(c *wgctrl.Client) error {
		key := wgtypes.Key(d.key.b)
		if err := c.ConfigureDevice(d.link, wgtypes.Config{PrivateKey: &key}); err != nil {
			return err
		}
		if dev, err := c.Device(d.link); err != nil {
			return err
		} else if port = dev.ListenPort; port != 0 {
			return nil
		}
		free, err := freePort()
		if err != nil {
			return err
		}
		port = free
		return c.ConfigureDevice(d.link, wgtypes.Config{ListenPort: &port})
	})
	if err != nil {
		return err
	}
	d.forward, err = newForwarder(d.bind, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port)))
	return err
}

// freePort finds a UDP port that is free now.
func freePort() (int, error) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port, nil
}

func (d *kernelDevice) control(ns netns.NsHandle, f func(*wgctrl.Client) error) error {
	err := inside(ns, func() error {
		c, err := wgctrl.New()
		if err != nil {
			return err
		}
		defer c.Close()
		return f(c)
	})
	if err != nil {
		return fmt.Errorf("device %s: %w", d.link, err)
	}
	return nil
}

// setPeers changes what differs: additions first, which take moved prefixes from others in the same step.
func (d *kernelDevice) setPeers(ns netns.NsHandle, want []plan.Peer) (changes int, err error) {
	err = d.control(ns, func(c *wgctrl.Client) error {
		dev, err := c.Device(d.link)
		if err != nil {
			return err
		}
		auto := net.UDPAddrFromAddrPort(d.forward.auto.local())
		cfg := diffKernel(kernelStats(dev), want, auto)
		for _, gone := range d.forward.forget(time.Now()) {
			for _, p := range dev.Peers {
				if p.Endpoint != nil && p.Endpoint.AddrPort() == gone {
					cfg = append(cfg, wgtypes.PeerConfig{PublicKey: p.PublicKey, UpdateOnly: true, Endpoint: auto})
				}
			}
		}
		changes = len(cfg)
		if changes == 0 {
			return nil
		}
		return c.ConfigureDevice(d.link, wgtypes.Config{Peers: cfg})
	})
	return changes, err
}

// diffKernel is [diffPeers] for the kernel's protocol.
func diffKernel(have map[fleet.Key]PeerStat, want []plan.Peer, auto *net.UDPAddr) (out []wgtypes.PeerConfig) {
	wanted := map[fleet.Key]bool{}
	owned := map[netip.Prefix]bool{}
	for _, p := range want {
		wanted[p.Key] = true
		for _, a := range p.Allowed {
			owned[a.Masked()] = true
		}
	}
	for _, p := range want {
		st, there := have[p.Key]
		pc := wgtypes.PeerConfig{PublicKey: wgtypes.Key(p.Key), UpdateOnly: there}
		lost := slices.ContainsFunc(st.Allowed, func(a netip.Prefix) bool { return !owned[a] })
		for _, a := range p.Allowed {
			if lost || !slices.Contains(st.Allowed, a.Masked()) {
				pc.AllowedIPs = append(pc.AllowedIPs, ipNet(a.Masked()))
			}
		}
		pc.ReplaceAllowedIPs = lost // the protocol has no removal of one before Linux 6.15
		if !there {
			pc.Endpoint = auto
		}
		if st.Keepalive != p.Keepalive {
			d := time.Duration(p.Keepalive) * time.Second
			pc.PersistentKeepaliveInterval = &d
		}
		if !there || lost || len(pc.AllowedIPs) > 0 || pc.PersistentKeepaliveInterval != nil {
			out = append(out, pc)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(have), func(a, b fleet.Key) int { return slices.Compare(a[:], b[:]) }) {
		if !wanted[k] {
			out = append(out, wgtypes.PeerConfig{PublicKey: wgtypes.Key(k), Remove: true})
		}
	}
	return out
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func kernelStats(dev *wgtypes.Device) map[fleet.Key]PeerStat {
	all := map[fleet.Key]PeerStat{}
	for _, p := range dev.Peers {
		st := PeerStat{Handshake: p.LastHandshakeTime, RxBytes: uint64(p.ReceiveBytes), TxBytes: uint64(p.TransmitBytes),
			Keepalive: int(p.PersistentKeepaliveInterval / time.Second)}
		for _, a := range p.AllowedIPs {
			ip, _ := netip.AddrFromSlice(a.IP)
			ones, _ := a.Mask.Size()
			st.Allowed = append(st.Allowed, netip.PrefixFrom(ip.Unmap(), ones))
		}
		all[fleet.Key(p.PublicKey)] = st
	}
	return all
}

// Remove implements [Driver].
func (k *Kernel) Remove(slice string) error {
	d := k.get(slice)
	if d == nil {
		return nil
	}
	d.forward.close()
	k.mu.Lock()
	delete(k.devices, slice)
	k.mu.Unlock()
	return removeLink(d.path, d.link)
}

// Peers implements [Driver].
func (k *Kernel) Peers(slice string) (all map[fleet.Key]PeerStat, err error) {
	d := k.get(slice)
	if d == nil {
		return nil, nil
	}
	ns, _, err := namespace(d.path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	err = d.control(ns, func(c *wgctrl.Client) error {
		dev, err := c.Device(d.link)
		if err == nil {
			all = kernelStats(dev)
		}
		return err
	})
	return all, err
}

// Handshake implements [Driver]. The kernel starts one when it has something to send and no session: so the peer is
// taken out and put back, with a keepalive to make it speak. Without renew the session must live, and nothing is done
// but that keepalive: the kernel's own rekeying, every two minutes, then tries the direct paths.
func (k *Kernel) Handshake(slice string, peer fleet.Key, renew bool) {
	d := k.get(slice)
	if d == nil {
		return
	}
	ns, _, err := namespace(d.path)
	if err != nil {
		return
	}
	defer ns.Close()
	err = d.control(ns, func(c *wgctrl.Client) error {
		dev, err := c.Device(d.link)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(dev.Peers, func(p wgtypes.Peer) bool { return fleet.Key(p.PublicKey) == peer })
		if i < 0 {
			return nil
		}
		p := dev.Peers[i]
		keep, speak := p.PersistentKeepaliveInterval, time.Duration(1)*time.Second
		if renew {
			again := wgtypes.PeerConfig{PublicKey: p.PublicKey, AllowedIPs: p.AllowedIPs, PersistentKeepaliveInterval: &keep,
				Endpoint: net.UDPAddrFromAddrPort(d.forward.auto.local())}
			if err := c.ConfigureDevice(d.link, wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: p.PublicKey, Remove: true}, again}}); err != nil {
				return err
			}
		}
		for _, t := range []*time.Duration{&speak, &keep} { // switching it on sends one at once
			if err := c.ConfigureDevice(d.link, wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: p.PublicKey, UpdateOnly: true, PersistentKeepaliveInterval: t}}}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, unix.ENODEV) {
		k.log.Debug("start a handshake", "slice", slice, "err", err)
	}
}

// Close implements [Driver].
func (k *Kernel) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for s, d := range k.devices {
		d.forward.close()
		delete(k.devices, s)
	}
}
