package datapath

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/datapath/link"
	"seaway.dev/seaway/slice/plan"
)

// Rules in a pod's namespace, in this order, before main's (32766):
//
//	7700: from <slice address> lookup 77        what comes over the slice is answered over the slice
//	7701: from <slice address> unreachable      and never leaves by the CNI
//	7702: from <address of the CNI> lookup main what comes over the CNI is answered over the CNI: kubelet's probes
//	                                            live on where the slice's prefix is the cluster's own pod network
//	7703: from all lookup 77                    new connections to the slice's prefixes
const (
	ruleSlice = 7700 + iota
	ruleUnreachable
	ruleCNI
	ruleAll
)

// podWant is what a pod's namespace should hold of us. cni are the addresses it has from elsewhere.
func podWant(s plan.Slice, at plan.Attachment, cni []netip.Addr) link.Want {
	const dev = plan.PodLink
	w := link.Want{Links: []link.Link{{Name: dev, Alias: link.Alias(s.Name, at.PodUID), MTU: s.MTU}}}
	has := map[bool]bool{} // families, by is4
	for _, a := range at.Addrs {
		gw := gateway(a.Is4())
		has[a.Is4()] = true
		w.Addrs = append(w.Addrs, link.Addr{Link: dev, Prefix: host(a)})
		w.Neighbours = append(w.Neighbours, link.Neighbour{Link: dev, IP: gw, MAC: link.SliceMAC})
		w.Routes = append(w.Routes, link.Route{Dst: host(gw), Link: dev, Src: a, Table: link.Table})
		for _, p := range at.Prefixes {
			if p.Addr().Is4() == a.Is4() {
				w.Routes = append(w.Routes, link.Route{Dst: p.Masked(), Link: dev, Via: gw, Src: a, Table: link.Table})
			}
		}
		w.Rules = append(w.Rules,
			link.Rule{Priority: ruleSlice, V6: a.Is6(), From: host(a), Table: link.Table},
			link.Rule{Priority: ruleUnreachable, V6: a.Is6(), From: host(a)},
			link.Rule{Priority: ruleAll, V6: a.Is6(), Table: link.Table})
	}
	for _, a := range cni {
		if has[a.Is4()] {
			w.Rules = append(w.Rules, link.Rule{Priority: ruleCNI, V6: a.Is6(), From: host(a), Table: unix.RT_TABLE_MAIN})
		}
	}
	return w
}

// sliceWant is what a slice's namespace should hold of us.
func (r *run) sliceWant(s *sliceRun) link.Want {
	w := link.Want{
		Links: []link.Link{{Name: "lo"}},
		// The source of the namespace's own packets: probes and ICMP errors. In IPv6 it is on every link instead,
		// because a link-local address belongs to its link.
		Addrs: []link.Addr{{Link: "lo", Prefix: host(plan.Gateway4)}},
	}
	for _, p := range s.pods {
		if p.reason != "" {
			continue
		}
		w.Links = append(w.Links, link.Link{Name: p.Link, Alias: link.Alias(s.Name, p.PodUID), MTU: s.MTU})
		for _, a := range p.Addrs {
			if a.Is6() {
				w.Addrs = append(w.Addrs, link.Addr{Link: p.Link, Prefix: host(plan.Gateway6)})
			}
			w.Neighbours = append(w.Neighbours, link.Neighbour{Link: p.Link, IP: a, MAC: link.PodMAC})
		}
	}
	for _, rt := range s.Routes {
		if rt.Link != "" && rt.Link != plan.TunLink && s.space.Index(rt.Link) == 0 {
			// Its pod is not attached: say so with an error instead of a hang.
			rt.Link = ""
		}
		w.Routes = append(w.Routes, link.Route{Dst: rt.Dst.Masked(), Link: rt.Link})
	}
	return w
}

func gateway(v4 bool) netip.Addr {
	if v4 {
		return plan.Gateway4
	}
	return plan.Gateway6
}
