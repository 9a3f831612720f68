// Package datapath makes a node's kernel what the plan says: per slice a network namespace with a link to each attached
// pod, routes and an nftables table; and in each attached pod one link, with routes for the slice's prefixes alone.
//
//	pod's namespace                     slice's namespace (RunDir/netns/<slice>)
//	eth0  the CNI's, untouched          wg0     made by the tunnel process
//	slice0 ◀────────veth────────────▶   p1a2b…  one per pod
//	  10.1.0.5/32                         10.1.0.5 dev p1a2b…
//	  10.1.0.0/16 via 169.254.77.1        10.1.64.0/18 dev wg0
//	  in table 77, by rules               table inet seaway
//
// [Kernel.Apply] reads what is there, compares and applies the difference; it remembers nothing that matters, so a
// restarted agent, a rebooted node or a meddled-with namespace all end up the same. Applied twice, the second time
// does nothing. Only what carries Seaway's mark is touched (see package link), never the host's namespace, and in a
// pod never a default route.
package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"seaway.dev/seaway/datapath/flow"
	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/datapath/nft"
	"seaway.dev/seaway/datapath/pod"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// Sandboxes finds pods' namespaces: [pod.Finder], or a test's.
type Sandboxes interface {
	// Find says where the sandboxes of some pods are. The namespaces stay the finder's; it lets go of those of
	// pods it is not asked for any more.
	Find(ctx context.Context, refs []pod.Ref) pod.Found
	// All lists the sandboxes of every pod on the node. The caller closes their namespaces.
	All(ctx context.Context) ([]*pod.Sandbox, error)
}

// Config is what a Kernel needs.
type Config struct {
	NetNSDir  string // where slices' namespaces are mounted; "" means plan.NetNSDir
	Sandboxes Sandboxes
	Log       *slog.Logger
}

// Kernel applies plans to this machine's kernel. Its methods can be called by several goroutines; one works at a time.
type Kernel struct {
	dir  string
	pods Sandboxes
	log  *slog.Logger

	mu     sync.Mutex
	swept  bool                         // leftovers of earlier lives were looked for
	states map[string]*fleet.Attachment // by slice and pod UID: since when, and how long attaching took
	asked  map[string]time.Time         // when a pod's attachment was first asked for
	found  map[string]seen              // pods whose side was right when last looked at, by slice and pod UID

	steering sync.Mutex            // held for milliseconds; taken after mu
	memos    map[uint64]*nft.Memo  // by the namespace's inode
	newest   map[string]plan.Slice // the newest plan of each slice that was applied or steered by
	inside   map[string]flow.Pod   // by slice and pod UID; held beside the finder's, so that Steer needs to ask nobody

	changed  func() // see Watch
	watches  map[string]watch
	watchers sync.WaitGroup
}

// How says how much Apply trusts what it saw before.
type How int

const (
	// Thorough reads everything: nothing is taken on trust.
	Thorough How = iota
	// Quick passes over the inside of pods that were right when last looked at, as long as they are wanted as they
	// were, run in the same sandbox, and their link has both ends up. It costs what changed instead of what is there;
	// a Thorough one every few seconds finds what was changed inside the pods meanwhile.
	Quick
)

// seen is a pod whose side was as wanted.
type seen struct {
	netns uint64
	mtu   int
	at    plan.Attachment
}

// Result says what Apply did and how things stand.
type Result struct {
	Ops         int                // changes made in the kernel
	Ended       flow.Ended         // sockets of pods whose peers are gone
	Attachments []fleet.Attachment // sorted by slice, then pod
	Problems    []fleet.Problem
}

// New returns a Kernel.
func New(cfg Config) *Kernel {
	k := &Kernel{
		dir: cfg.NetNSDir, pods: cfg.Sandboxes, log: cfg.Log,
		states: map[string]*fleet.Attachment{}, asked: map[string]time.Time{}, memos: map[uint64]*nft.Memo{},
		found: map[string]seen{}, watches: map[string]watch{}, newest: map[string]plan.Slice{}, inside: map[string]flow.Pod{},
	}
	if k.dir == "" {
		k.dir = plan.NetNSDir
	}
	return k
}

// sysctls of a slice's namespace. The host's are never changed.
var sysctls = []netns.Sysctl{
	{Name: "net/ipv4/ip_forward", Value: "1"},
	{Name: "net/ipv4/conf/all/rp_filter", Value: "0"}, // routes decide; nftables drops forged sources
	{Name: "net/ipv4/conf/default/rp_filter", Value: "0"},
	{Name: "net/ipv4/conf/all/send_redirects", Value: "0"}, // pods share no link
	{Name: "net/ipv4/conf/default/send_redirects", Value: "0"},
	{Name: "net/ipv4/conf/all/accept_redirects", Value: "0"},
	{Name: "net/ipv4/conf/default/accept_redirects", Value: "0"},
	{Name: "net/ipv4/icmp_ratelimit", Value: "0"}, // a refusal must reach everyone who tries, not one a second
	{Name: "net/ipv6/conf/all/disable_ipv6", Value: "0"},
	{Name: "net/ipv6/conf/default/disable_ipv6", Value: "0"},
	{Name: "net/ipv6/conf/all/forwarding", Value: "1"},
	{Name: "net/ipv6/conf/all/accept_dad", Value: "0"},
	{Name: "net/ipv6/conf/default/accept_dad", Value: "0"},
	{Name: "net/ipv6/conf/all/accept_ra", Value: "0"},
	{Name: "net/ipv6/conf/default/accept_ra", Value: "0"},
	{Name: "net/ipv6/icmp/ratelimit", Value: "0"},
}

// Namespaces makes sure that the namespaces of the wanted slices are there, with their parameters set, so that the
// tunnel can put its devices into them. Apply does it as well.
func (k *Kernel) Namespaces(_ context.Context, want []plan.Slice) (ops int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, s := range want {
		ns, n, err := k.namespace(s, Quick)
		ops += n
		if err != nil {
			errs = append(errs, err)
			continue
		}
		_ = ns.Close()
	}
	return ops, errors.Join(errs...)
}

// namespace opens a slice's namespace, made and set up if need be.
func (k *Kernel) namespace(s plan.Slice, how How) (*netns.NS, int, error) {
	if filepath.Dir(s.NetNS) != filepath.Clean(k.dir) || filepath.Base(s.NetNS) != s.Name {
		return nil, 0, fmt.Errorf("slice %q: its namespace %q does not lie in %s", s.Name, s.NetNS, k.dir)
	}
	ns, made, err := netns.Create(s.NetNS)
	if err != nil {
		return nil, 0, fmt.Errorf("slice %s: %w", s.Name, err)
	}
	k.steering.Lock()
	if made {
		delete(k.memos, ns.Inode()) // the number of one that is gone can come again
	}
	known := k.memos[ns.Inode()] != nil
	k.steering.Unlock()
	if how == Quick && known {
		return ns, 0, nil
	}
	ops, err := ns.SetSysctls(sysctls)
	if made {
		ops++
	}
	if err != nil {
		_ = ns.Close()
		return nil, ops, fmt.Errorf("slice %s: %w", s.Name, err)
	}
	return ns, ops, nil
}

// unwanted lists the slices that have a namespace and should not.
func (k *Kernel) unwanted(want []plan.Slice) ([]string, error) {
	entries, err := os.ReadDir(k.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the slices' namespaces: %w", err)
	}
	var out []string
	for _, e := range entries {
		if !slices.ContainsFunc(want, func(s plan.Slice) bool { return s.Name == e.Name() }) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// memo remembers what a namespace's nftables were left as, for as long as the kernel says that they still are.
func (k *Kernel) memo(ns *netns.NS) *nft.Memo {
	if k.memos[ns.Inode()] == nil {
		k.memos[ns.Inode()] = &nft.Memo{}
	}
	return k.memos[ns.Inode()]
}

func (k *Kernel) path(slice string) string { return filepath.Join(k.dir, slice) }

// host is the prefix of one address.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func sortAttachments(as []fleet.Attachment) {
	slices.SortFunc(as, func(a, b fleet.Attachment) int {
		return strings.Compare(a.Slice+" "+a.Namespace+"/"+a.Pod+" "+a.PodUID, b.Slice+" "+b.Namespace+"/"+b.Pod+" "+b.PodUID)
	})
}
