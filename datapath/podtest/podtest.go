// Package podtest makes pods for tests of the data path: network namespaces with an eth0 on a bridge, as a CNI would,
// and a fake of the container runtime that knows them. Nothing of it touches the machine's own namespace.
package podtest

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/datapath/netnstest"
	"seaway.dev/seaway/datapath/pod"
)

// Node is a machine with a bridge that its pods' eth0 are on.
type Node struct {
	NS      *netns.NS
	Gateway map[bool]netip.Addr // the bridge's addresses, by is4
	pods    int
}

// NewNode makes a node whose pod network is 10.244.0.0/16 and fd00:244::/64; the bridge has the first address.
func NewNode(t testing.TB) *Node {
	t.Helper()
	netnstest.NeedRoot(t)
	ns := NewNS(t)
	n := &Node{NS: ns, Gateway: map[bool]netip.Addr{
		true: netip.MustParseAddr("10.244.0.1"), false: netip.MustParseAddr("fd00:244::1"),
	}}
	h := handle(t, ns)
	defer h.Close()
	must(t, h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs("cni0")}))
	br := linkOf(t, h, "cni0")
	addAddr(t, h, br, "10.244.0.1/16")
	addAddr(t, h, br, "fd00:244::1/64")
	quiet(t, h, br)
	must(t, h.LinkSetUp(br))
	must(t, h.LinkSetUp(linkOf(t, h, "lo")))
	return n
}

// NewNS makes a namespace that goes with the test.
func NewNS(t testing.TB) *netns.NS {
	t.Helper()
	netnstest.NeedRoot(t)
	ns, err := netns.New()
	must(t, err)
	t.Cleanup(func() { _ = ns.Close() })
	return ns
}

// Pod is a fake running pod.
type Pod struct {
	UID string
	NS  *netns.NS
	IPs []netip.Addr // of its eth0
}

// Pod makes a pod on the node's bridge. Its addresses follow the order of making: 10.244.0.11, .12, ...
func (n *Node) Pod(t testing.TB, uid string) *Pod {
	t.Helper()
	n.pods++
	p := &Pod{UID: uid, NS: NewNS(t), IPs: []netip.Addr{
		netip.MustParseAddr(fmt.Sprintf("10.244.0.%d", 10+n.pods)),
		netip.MustParseAddr(fmt.Sprintf("fd00:244::%x", 10+n.pods)),
	}}
	h, hn := handle(t, p.NS), handle(t, n.NS)
	defer h.Close()
	defer hn.Close()
	host := fmt.Sprintf("veth%d", n.pods)
	must(t, hn.LinkAdd(&netlink.Veth{LinkAttrs: attrs(host), PeerName: "eth0", PeerNamespace: netlink.NsFd(p.NS.FD())}))
	hl := linkOf(t, hn, host)
	must(t, hn.LinkSetMaster(hl, linkOf(t, hn, "cni0")))
	quiet(t, hn, hl)
	must(t, hn.LinkSetUp(hl))
	must(t, h.LinkSetUp(linkOf(t, h, "lo")))
	eth := linkOf(t, h, "eth0")
	addAddr(t, h, eth, p.IPs[0].String()+"/16")
	addAddr(t, h, eth, p.IPs[1].String()+"/64")
	quiet(t, h, eth)
	must(t, h.LinkSetUp(eth))
	for _, four := range []bool{true, false} {
		must(t, h.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: n.Gateway[four].AsSlice()}))
	}
	return p
}

// Run runs a command inside a namespace and returns what it printed.
func Run(ns *netns.NS, name string, args ...string) (string, error) {
	var out []byte
	err := ns.Do(func() (err error) {
		out, err = exec.Command(name, args...).CombinedOutput()
		return err
	})
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// Snapshot prints everything about a namespace that Seaway could have changed.
func Snapshot(t testing.TB, ns *netns.NS) string {
	t.Helper()
	var b strings.Builder
	for _, args := range [][]string{
		{"ip", "-o", "link"}, {"ip", "-o", "addr"}, {"ip", "route", "show", "table", "all"},
		{"ip", "-6", "route", "show", "table", "all"}, {"ip", "rule"}, {"ip", "-6", "rule"},
		{"ip", "neigh", "show", "nud", "permanent"}, {"nft", "list", "ruleset"},
	} {
		out, err := Run(ns, args[0], args[1:]...)
		must(t, err)
		// Whether a link carries is told with a delay.
		for _, state := range []string{"NO-CARRIER,", ",LOWER_UP", " state UP", " state DOWN", " state LOWERLAYERDOWN", " state UNKNOWN"} {
			out = strings.ReplaceAll(out, state, "")
		}
		fmt.Fprintf(&b, "# %s\n", strings.Join(args, " "))
		lines := slices.Collect(strings.Lines(out))
		if args[0] == "ip" {
			slices.Sort(lines) // the kernel's own come in whatever order links begin to carry, and now and then twice
			lines = slices.Compact(lines)
		}
		for _, line := range lines {
			if !strings.HasPrefix(line, "multicast ff00::/8 dev veth") { // the kernel's, once the link carries
				b.WriteString(line)
			}
		}
	}
	must(t, ns.Do(func() error { return sysctls(&b) }))
	return b.String()
}

func sysctls(b *strings.Builder) error {
	var lines []string
	err := filepath.WalkDir("/proc/sys/net", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		switch filepath.Base(p) {
		// What counts, caches, or is drawn at random is no setting.
		case "nf_conntrack_count", "stable_secret", "tcp_fastopen_key", "flush", "idmap", "tcp_ehash_entries", "nf_conntrack_buckets":
			return nil
		}
		v, err := os.ReadFile(p)
		if err == nil {
			lines = append(lines, p+" = "+string(bytes.TrimSpace(v)))
		}
		return nil
	})
	sort.Strings(lines)
	fmt.Fprintf(b, "# sysctl\n%s\n", strings.Join(lines, "\n"))
	return err
}

// Sandboxes is a fake runtime: it knows the pods it was told of.
type Sandboxes struct {
	mu      sync.Mutex
	pods    map[string]*pod.Sandbox
	refused map[string]*pod.Refusal
}

// Set makes a pod run in a namespace, instead of any it had.
func (s *Sandboxes) Set(uid string, ns *netns.NS) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pods == nil {
		s.pods = map[string]*pod.Sandbox{}
	}
	if ns == nil {
		delete(s.pods, uid)
		return
	}
	s.pods[uid] = &pod.Sandbox{UID: uid, ID: fmt.Sprintf("sandbox-%d", ns.Inode()), NS: ns, Born: time.Now()}
}

// Refuse makes a pod one that cannot be attached.
func (s *Sandboxes) Refuse(uid string, why *pod.Refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused == nil {
		s.refused = map[string]*pod.Refusal{}
	}
	s.refused[uid] = why
}

// Find implements datapath.Sandboxes.
func (s *Sandboxes) Find(_ context.Context, refs []pod.Ref) pod.Found {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := pod.Found{Sandboxes: map[string]*pod.Sandbox{}, Refused: map[string]*pod.Refusal{}}
	for _, r := range refs {
		if why := s.refused[r.UID]; why != nil {
			f.Refused[r.UID] = why
		} else if sb := s.pods[r.UID]; sb != nil {
			f.Sandboxes[r.UID] = sb
		} else {
			f.Refused[r.UID] = &pod.Refusal{Reason: pod.ReasonNotFound, Message: "no such sandbox"}
		}
	}
	return f
}

// All implements datapath.Sandboxes.
func (s *Sandboxes) All(context.Context) ([]*pod.Sandbox, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*pod.Sandbox
	for _, sb := range s.pods {
		ns, err := netns.Open(fmt.Sprintf("/proc/self/fd/%d", sb.NS.FD()))
		if err != nil {
			return nil, err
		}
		c := *sb
		c.NS = ns
		out = append(out, &c)
	}
	return out, nil
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

func handle(t testing.TB, ns *netns.NS) *netlink.Handle {
	t.Helper()
	h, err := ns.Netlink()
	must(t, err)
	return h
}

// quiet keeps a link from giving itself an IPv6 address, which it would only have a second later.
func quiet(t testing.TB, h *netlink.Handle, l netlink.Link) {
	t.Helper()
	must(t, h.LinkSetIP6AddrGenMode(l, 1)) // IN6_ADDR_GEN_MODE_NONE
}

func linkOf(t testing.TB, h *netlink.Handle, name string) netlink.Link {
	t.Helper()
	l, err := h.LinkByName(name)
	must(t, err)
	return l
}

func addAddr(t testing.TB, h *netlink.Handle, l netlink.Link, cidr string) {
	t.Helper()
	ip, n, err := net.ParseCIDR(cidr)
	must(t, err)
	n.IP = ip
	a := &netlink.Addr{IPNet: n}
	if ip.To4() == nil {
		a.Flags = 0x02 // IFA_F_NODAD: usable at once
	}
	must(t, h.AddrAdd(l, a))
}

// Tun makes a TUN device that stands for the tunnel's in a slice's namespace.
func Tun(t testing.TB, ns *netns.NS, name string) {
	t.Helper()
	h := handle(t, ns)
	defer h.Close()
	// The device is made in the namespace of the thread that opens it.
	_, err := Run(ns, "ip", "tuntap", "add", "dev", name, "mode", "tun")
	must(t, err)
	must(t, h.LinkSetUp(linkOf(t, h, name)))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
