package share

import (
	"fmt"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"seaway.dev/seaway/fleet"
)

// Account tells where one node's traffic to a service goes, and why: what `seaway explain service` prints.
type Account struct {
	Service  string       `json:"service"` // namespace/name
	Slice    string       `json:"slice"`
	From     string       `json:"from"` // cluster/node whose traffic it is
	IPs      []netip.Addr `json:"ips,omitempty"`
	Headless bool         `json:"headless,omitempty"`
	// Sticky is how long a client stays with its endpoint, seconds; 0: each connection goes anew.
	Sticky int32         `json:"sticky,omitempty"`
	Ports  []PortAccount `json:"ports"`
}

// PortAccount is the decision about one port in one address family, or about a headless service's name.
type PortAccount struct {
	Name     string         `json:"name,omitempty"`
	Port     uint16         `json:"port,omitempty"`
	Protocol fleet.Protocol `json:"protocol,omitempty"`
	Family   int            `json:"family,omitempty"`
	Ruling
	Measured map[string]fleet.Reach `json:"measured,omitempty"` // by cluster/node, of the endpoints' nodes
}

// Explain accounts for a service. reach is what the view was made of.
func Explain(s fleet.Service, v View, reach []fleet.Reach) Account {
	a := Account{Service: s.Key(), Slice: s.Slice, From: v.Cluster + "/" + v.Node, IPs: s.IPs, Headless: s.Headless, Ports: []PortAccount{}}
	measured := map[string]fleet.Reach{}
	for _, r := range reach {
		measured[r.Node] = r
	}
	add := func(p PortAccount) {
		p.Measured = map[string]fleet.Reach{}
		for i := range p.Standings {
			e := &p.Standings[i].Endpoint
			if m, ok := measured[e.Cluster+"/"+e.Node]; ok {
				p.Measured[m.Node] = m
			}
		}
		a.Ports = append(a.Ports, p)
	}
	if s.Headless {
		r := Of(&s, v, Ask{})
		r.Rule = "the name answers with all that are ready and can be reached, nearest first"
		for i := range r.Standings {
			r.order(&r.Standings[i])
		}
		add(PortAccount{Ruling: r})
		return a
	}
	if s.Affinity {
		a.Sticky = max(s.Timeout, 0)
		if a.Sticky == 0 {
			a.Sticky = DefaultSticky
		}
	}
	for _, ip := range s.IPs {
		family := 6
		if ip.Is4() {
			family = 4
		}
		for _, p := range s.Ports {
			add(PortAccount{Name: p.Name, Port: p.Port, Protocol: p.Protocol, Family: family, Ruling: Of(&s, v, Ask{Port: &p.Name, Family: family})})
		}
	}
	return a
}

// DefaultSticky is how long a client stays with its endpoint when the service wants that and does not say how long,
// seconds: Kubernetes' default for sessionAffinityConfig.clientIP.timeoutSeconds.
const DefaultSticky = 10800

// order says of a headless service's endpoint what share means little for: whether it is answered.
func (r *Ruling) order(st *Standing) {
	st.Weight, st.Share = 0, 0
	if r.usable(st) {
		st.Why = "answered"
		if r.Kept {
			st.Why = "answered, because nobody of this service can be reached"
		}
	}
}

// Text prints the account for people.
func (a Account) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "service %s on slice %s, seen from %s\n", a.Service, a.Slice, a.From)
	if a.Headless {
		b.WriteString("headless: its name stands for its endpoints\n")
	} else {
		fmt.Fprintf(&b, "address %s", joined(a.IPs))
		if a.Sticky > 0 {
			fmt.Fprintf(&b, "; a client stays with its endpoint for %s", time.Duration(a.Sticky)*time.Second)
		}
		b.WriteByte('\n')
	}
	if len(a.Ports) == 0 {
		b.WriteString("no address yet: its cluster's controller hands it out\n")
	}
	for _, p := range a.Ports {
		p.text(&b, a.Headless)
	}
	return b.String()
}

func (p PortAccount) text(b *strings.Builder, headless bool) {
	b.WriteByte('\n')
	if !headless {
		fmt.Fprintf(b, "port %d %s %s, IPv%d: ", p.Port, p.Protocol, p.Name, p.Family)
	}
	fmt.Fprintf(b, "%s\n", p.Rule)
	if p.Kept {
		b.WriteString("NOBODY CAN BE REACHED: the last answer stands, connections are refused\n")
	}
	if len(p.Standings) == 0 {
		b.WriteString("no endpoints: nobody offers it\n")
		return
	}
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SHARE\tSTATE\tNODE\tPOD\tADDRESS\tDISTANCE\tRTT\tPATH\tWHY")
	for _, s := range p.Standings {
		part := fmt.Sprintf("%.0f %%", 100*s.Share)
		if headless {
			part = "-"
		}
		m := p.Measured[s.Endpoint.Cluster+"/"+s.Endpoint.Node]
		rtt, path := "-", m.Path
		if m.RTT > 0 {
			rtt = m.RTT.Round(100 * time.Microsecond).String()
		}
		if path == "" {
			path = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s/%s\t%s\t%s\t%s\t%s\t%s\t%s\n", part, s.State, s.Endpoint.Cluster, s.Endpoint.Node,
			dash(s.Endpoint.Pod), joined(s.Endpoint.Addrs), s.Distance, rtt, path, s.Why)
	}
	_ = w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func joined(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return dash(strings.Join(out, ","))
}
