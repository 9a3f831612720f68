package bulletin

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"regexp"
	"slices"

	"seaway.dev/seaway/fleet"
)

// Limits of one entry.
const (
	maxAddrs    = 16 // underlay addresses of a node
	maxPorts    = 250
	maxLabels   = 32
	maxLabelLen = 320 // a label's key (prefix 253, slash, name 63)
	maxNotes    = 32 << 10
	maxText     = 63
	maxRefusals = 20 // that are named; all are counted
)

// Refusals are the entries of a bulletin that were not believed.
type Refusals struct {
	Count int
	Named []string // the first few: what and why
}

func (r *Refusals) add(format string, args ...any) {
	r.Count++
	if len(r.Named) < maxRefusals {
		r.Named = append(r.Named, fmt.Sprintf(format, args...))
	}
}

// Check returns the part of a cluster's bulletin that is true to what that cluster was given: the slices it is on
// and its blocks of their prefixes. It returns an error, and nothing, if the bulletin is not the owner's at all. The
// bulletin itself is not changed.
func Check(b *fleet.Bulletin, owner string, all []fleet.Slice) (*fleet.Bulletin, Refusals, error) {
	if b.Version < 1 || b.Version > fleet.WireVersion {
		return nil, Refusals{}, fmt.Errorf("bulletin of version %d, this Seaway reads up to %d", b.Version, fleet.WireVersion)
	}
	if b.Cluster != owner {
		return nil, Refusals{}, fmt.Errorf("bulletin of cluster %.64q in the mailbox of %q", b.Cluster, owner)
	}
	c := newChecker(owner, all)
	out := *b
	out.Region, out.Provider, out.Software = short(b.Region), short(b.Provider), short(b.Software)
	out.Nodes = c.nodes(b.Nodes)
	out.Pods = c.pods(b.Pods)
	out.Exports = c.exports(b.Exports)
	out.Scaling = c.scaling(b.Scaling)
	out.Networks, out.Needed = nil, nil // what the hub makes of them counts
	return &out, c.refused, nil
}

// newChecker makes what is to be known of an owner.
func newChecker(owner string, all []fleet.Slice) *checker {
	c := &checker{owner: owner, blocks: map[string][]netip.Prefix{}, networks: map[string][]netip.Prefix{}}
	for _, s := range all {
		if !slices.Contains(s.Clusters, owner) {
			continue
		}
		c.blocks[s.Name] = []netip.Prefix{}
		for _, blk := range s.Blocks {
			if blk.Cluster == owner {
				c.blocks[s.Name] = append(c.blocks[s.Name], blk.Prefix)
			}
		}
		for _, n := range s.Networks {
			if n.Cluster == owner {
				c.networks[s.Name] = append(c.networks[s.Name], n.Prefix)
			}
		}
	}
	return c
}

type checker struct {
	owner    string
	blocks   map[string][]netip.Prefix // slice → the owner's blocks
	networks map[string][]netip.Prefix // slice → the owner's own pod networks, where they count
	refused  Refusals
}

// DNS-1123 subdomains and labels, as Kubernetes names nodes, pods, namespaces and services.
var (
	subdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	label     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
)

func isSubdomain(s string) bool { return len(s) <= 253 && subdomain.MatchString(s) }
func isLabel(s string) bool     { return len(s) <= 63 && label.MatchString(s) }

func short(s string) string { return s[:min(len(s), maxText)] }

func (c *checker) nodes(in []fleet.Node) []fleet.Node {
	var out []fleet.Node
	names, keys := map[string]bool{}, map[fleet.Key]bool{}
	for _, n := range in {
		switch {
		case !isSubdomain(n.Name) || names[n.Name]:
			c.refused.add("node %.64q: not a node's name, or named twice", n.Name)
			continue
		case n.Cluster != c.owner:
			c.refused.add("node %s: of cluster %.64q", n.Name, n.Cluster)
			continue
		case n.Port == 0 || len(n.Addrs) > maxAddrs || n.MTU < 0 || n.MTU > 65535:
			c.refused.add("node %s: port %d, %d addresses, MTU %d", n.Name, n.Port, len(n.Addrs), n.MTU)
			continue
		}
		names[n.Name] = true
		n.Addrs = slices.DeleteFunc(slices.Clone(n.Addrs), func(a netip.Addr) bool {
			if dialable(a) {
				return false
			}
			c.refused.add("node %s: address %v is nobody's", n.Name, a)
			return true
		})
		held := make(map[string]fleet.Key, len(n.Keys))
		for name, k := range n.Keys {
			s, _ := fleet.SplitKeyName(name)
			_, on := c.blocks[s]
			if (!on && s != fleet.ManagementSlice) || k.IsZero() || keys[k] {
				// A key for a slice that the cluster has just left, or is about to be put on, is no lie; but it is
				// of no use either.
				if on || k.IsZero() || keys[k] {
					c.refused.add("node %s: key on slice %.64q is empty or another's", n.Name, s)
				}
				continue
			}
			keys[k] = true
			held[name] = k
		}
		n.Keys = held
		out = append(out, n)
	}
	return out
}

// dialable tells whether an underlay address can be a machine's. Link-local addresses would need a zone that means
// something only there; loopback would make us talk to ourselves.
func dialable(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() && !a.IsLoopback() &&
		!a.IsMulticast() && !a.IsLinkLocalUnicast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (c *checker) pods(in []fleet.Pod) []fleet.Pod {
	var out []fleet.Pod
	taken := map[string]bool{}
	for _, p := range in {
		blocks, on := c.blocks[p.Slice]
		switch {
		case !isLabel(p.Namespace) || !isSubdomain(p.Name) || !isSubdomain(p.Node):
			c.refused.add("pod %.64q/%.64q on %.64q: not names", p.Namespace, p.Name, p.Node)
			continue
		case p.Cluster != c.owner:
			c.refused.add("pod %s: of cluster %.64q", p.Key(), p.Cluster)
			continue
		case !on:
			continue // of a slice that we do not know yet, or that the cluster has just left: no lie, no use
		case !noted(p.Labels):
			c.refused.add("pod %s: labels too many or too long", p.Key())
			continue
		}
		before := c.refused.Count
		c.addrs("pod "+p.Key(), p.Slice, p.Addrs, blocks)
		for _, a := range p.Addrs {
			if id := p.Slice + " " + a.String(); taken[id] {
				c.refused.add("pod %s: address %v is another pod's", p.Key(), a)
			} else {
				taken[id] = true
			}
		}
		if c.refused.Count > before {
			continue
		}
		p.UID, p.PodIPs = "", nil
		out = append(out, p)
	}
	return out
}

// addrs refuses addresses outside the owner's blocks, or more than one of a family.
func (c *checker) addrs(what, slice string, addrs []netip.Addr, blocks []netip.Prefix) {
	for i, a := range addrs {
		if !a.IsValid() || !slices.ContainsFunc(blocks, func(b netip.Prefix) bool { return b.Contains(a) }) {
			c.refused.add("%s: address %v is not in cluster %s's blocks of slice %s", what, a, c.owner, slice)
		}
		if slices.ContainsFunc(addrs[:i], func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			c.refused.add("%s: two addresses of one family", what)
		}
	}
}

func (c *checker) exports(in []fleet.Export) []fleet.Export {
	var out []fleet.Export
	names := map[string]bool{}
	for _, e := range in {
		blocks, on := c.blocks[e.Slice]
		key := e.Namespace + "/" + e.Name
		switch {
		case !isLabel(e.Namespace) || !isLabel(e.Name) || names[key]:
			c.refused.add("export %.64q: not a service's name, or named twice", key)
			continue
		case !on:
			continue // as with pods
		case !noted(e.Labels) || !noted(e.Annotations) || len(e.Families) > 2 || !portsTrue(e.Ports):
			c.refused.add("export %s: ports, labels or annotations malformed or too many", key)
			continue
		}
		names[key] = true
		eps := make([]fleet.Endpoint, 0, len(e.Endpoints))
		for _, ep := range e.Endpoints {
			before := c.refused.Count
			// A StatefulSet's pod has its name before it has an address.
			if ep.Cluster != c.owner || (len(ep.Addrs) == 0 && ep.Hostname == "") || len(ep.Ports) > maxPorts ||
				(ep.Node != "" && !isSubdomain(ep.Node)) || (ep.Pod != "" && !isSubdomain(ep.Pod)) ||
				(ep.Hostname != "" && !isLabel(ep.Hostname)) {
				c.refused.add("export %s: endpoint %.64q of cluster %.64q malformed", key, ep.Pod, ep.Cluster)
			}
			c.addrs("export "+key, e.Slice, ep.Addrs, blocks)
			if c.refused.Count == before {
				ep.PodAddrs = c.own(e.Slice, ep.PodAddrs)
				eps = append(eps, ep)
			}
		}
		e.Endpoints = eps
		out = append(out, e)
	}
	return out
}

// own keeps of a pod's own addresses those that are in its cluster's pod network, one a family. The others are no lie:
// the hub may have told their cluster of its networks before us, or after.
func (c *checker) own(slice string, addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if slices.ContainsFunc(c.networks[slice], func(p netip.Prefix) bool { return p.Contains(a) }) &&
			!slices.ContainsFunc(out, func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			out = append(out, a)
		}
	}
	return out
}

func portsTrue(ports []fleet.Port) bool {
	for i, p := range ports {
		twice := slices.ContainsFunc(ports[:i], func(o fleet.Port) bool { return o.Name == p.Name })
		known := p.Protocol == fleet.TCP || p.Protocol == fleet.UDP || p.Protocol == fleet.SCTP
		if p.Port == 0 || !known || twice || (p.Name != "" && !isLabel(p.Name)) || len(p.AppProtocol) > 253 {
			return false
		}
	}
	return len(ports) <= maxPorts
}

// noted tells whether labels or annotations are few and short.
func noted(m map[string]string) bool {
	if len(m) > maxLabels {
		return false
	}
	size := 0
	for k, v := range m {
		if k == "" || len(k) > maxLabelLen {
			return false
		}
		size += len(k) + len(v)
	}
	return size <= maxNotes
}

// Recheck is [Check] of a bulletin after an earlier one of the same cluster, for the same slices, of which nothing was
// refused: what the two share is not looked at again, so that a change costs what it changes.
func Recheck(b *fleet.Bulletin, owner string, all []fleet.Slice, old, believed *fleet.Bulletin) (*fleet.Bulletin, Refusals, error) {
	if old.Version != b.Version || old.Cluster != b.Cluster || !shared(old.Nodes, b.Nodes) {
		return Check(b, owner, all)
	}
	c := newChecker(owner, all)
	out := *b
	out.Region, out.Provider, out.Software = short(b.Region), short(b.Provider), short(b.Software)
	out.Nodes = slices.Clone(believed.Nodes)
	if shared(old.Pods, b.Pods) {
		out.Pods = believed.Pods
	} else if out.Pods = repod(b.Pods, old.Pods, believed.Pods); out.Pods == nil {
		out.Pods = c.pods(b.Pods)
	}
	if out.Exports = c.reexport(b.Exports, old.Exports, believed.Exports); out.Exports == nil {
		out.Exports = c.exports(b.Exports)
	}
	out.Scaling = c.scaling(b.Scaling)
	out.Networks, out.Needed = nil, nil
	return &out, c.refused, nil
}

// shared tells whether two lists are one.
func shared[T any](a, b []T) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// repod returns the pods as they are to be believed if they differ from the old ones, all of which were believed, in
// their readiness alone; else nil.
func repod(now, old, believed []fleet.Pod) []fleet.Pod {
	if len(now) != len(old) || len(believed) != len(old) {
		return nil
	}
	out := slices.Clone(believed)
	for i := range now {
		a, b := &now[i], &old[i]
		if a.Namespace != b.Namespace || a.Name != b.Name || a.Slice != b.Slice || a.Cluster != b.Cluster || a.Node != b.Node ||
			!shared(a.Addrs, b.Addrs) && !slices.Equal(a.Addrs, b.Addrs) || !maps.Equal(a.Labels, b.Labels) {
			return nil
		}
		out[i].Ready = a.Ready
	}
	return out
}

// reexport returns the exports as they are to be believed if they are of the same names as the old ones, all of which
// were believed; only those are checked of which something is not the very same. Else it returns nil.
func (c *checker) reexport(now, old, believed []fleet.Export) []fleet.Export {
	if len(now) != len(old) || len(believed) != len(old) || len(now) == 0 {
		return nil
	}
	for i := range now {
		if a, b := &now[i], &old[i]; a.Namespace != b.Namespace || a.Name != b.Name || a.Slice != b.Slice {
			return nil
		}
	}
	out, before := slices.Clone(believed), c.refused
	for i := range now {
		a, b := &now[i], &old[i]
		if shared(a.Endpoints, b.Endpoints) && sameHead(*a, *b) {
			continue
		}
		one := c.exports(now[i : i+1])
		if len(one) == 0 {
			c.refused = before // as a whole, then
			return nil
		}
		out[i] = one[0]
	}
	return out
}

// sameHead compares two exports without their endpoints.
func sameHead(a, b fleet.Export) bool {
	a.Endpoints, b.Endpoints = nil, nil
	return reflect.DeepEqual(a, b)
}
