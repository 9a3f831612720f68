package discovery

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/fleet"
)

var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// export makes an export of shop/web on slice pay by a cluster that is the nth to export.
func export(nth int, ports string, endpoints ...fleet.Endpoint) fleet.Export {
	return fleet.Export{Namespace: "shop", Name: "web", Slice: "pay", Created: epoch.Add(time.Duration(nth) * time.Second),
		Families: []string{IPv4}, Ports: parsePorts(ports), Endpoints: endpoints}
}

func with(e fleet.Export, change func(*fleet.Export)) fleet.Export { change(&e); return e }

// parsePorts reads "http=TCP/80,dns=UDP/53".
func parsePorts(s string) []fleet.Port {
	var out []fleet.Port
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' }) {
		name, rest, _ := strings.Cut(f, "=")
		proto, number, _ := strings.Cut(rest, "/")
		var n uint16
		fmt.Sscan(number, &n)
		out = append(out, fleet.Port{Name: name, Protocol: fleet.Protocol(proto), Port: n})
	}
	return out
}

// ready and waiting make endpoints whose ports are "http=8080,…".
func ready(pod, ports string, addrs ...string) fleet.Endpoint {
	e := fleet.Endpoint{Pod: pod, Ready: true, Ports: map[string]uint16{}}
	for _, f := range strings.FieldsFunc(ports, func(r rune) bool { return r == ',' }) {
		name, number, _ := strings.Cut(f, "=")
		var n uint16
		fmt.Sscan(number, &n)
		e.Ports[name] = n
	}
	for _, a := range addrs {
		e.Addrs = append(e.Addrs, netip.MustParseAddr(a))
	}
	return e
}

func waiting(pod, ports string, addrs ...string) fleet.Endpoint {
	e := ready(pod, ports, addrs...)
	e.Ready = false
	return e
}

// input is a cluster whose namespaces shop and bank are on slice pay, which has both families.
func input(exports map[string][]fleet.Export) Input {
	return Input{
		Exports: exports,
		Local: func(ns string) (string, bool) {
			return "pay", ns == "shop" || ns == "bank"
		},
		IPs: func(slice, ns, name string) []netip.Addr {
			return []netip.Addr{netip.MustParseAddr("10.9.0.200"), netip.MustParseAddr("fd00:9::c8")}
		},
		Families: func(string) []string { return []string{IPv4, IPv6} },
	}
}

// show prints an import in a form in which a difference is seen at once.
func show(ims []Import) string {
	var b strings.Builder
	for _, im := range ims {
		kind := "ClusterSetIP"
		if im.Headless {
			kind = "Headless"
		}
		fmt.Fprintf(&b, "%s on %s %s ips=%v families=%v by=%v oldest=%s\n", im.Key(), im.Slice, kind, im.IPs, im.Families, im.Clusters, im.Oldest)
		for _, p := range im.Ports {
			fmt.Fprintf(&b, "  port %s=%s/%d\n", p.Name, p.Protocol, p.Port)
		}
		if im.Affinity {
			fmt.Fprintf(&b, "  affinity %ds\n", im.Timeout)
		}
		if s := im.InternalTrafficPolicy + im.TrafficDistribution; s != "" {
			fmt.Fprintf(&b, "  traffic %q %q\n", im.InternalTrafficPolicy, im.TrafficDistribution)
		}
		if len(im.Labels)+len(im.Annotations) > 0 {
			fmt.Fprintf(&b, "  labels %v annotations %v\n", im.Labels, im.Annotations)
		}
		for _, e := range im.Endpoints {
			state := "ready"
			if !e.Ready {
				state = "waiting"
			}
			var ports []string
			for n, p := range e.Ports {
				ports = append(ports, fmt.Sprintf("%s=%d", n, p))
			}
			sort.Strings(ports)
			fmt.Fprintf(&b, "  %s/%s%s %v %s %s\n", e.Cluster, e.Pod, e.Hostname, e.Addrs, strings.Join(ports, ","), state)
		}
		for _, c := range im.Conflicts {
			fmt.Fprintf(&b, "  %s %v\n", c.Reason, c.Clusters)
		}
	}
	return b.String()
}

func TestMerge(t *testing.T) {
	one := func(c string, e fleet.Export) map[string][]fleet.Export { return map[string][]fleet.Export{c: {e}} }
	two := func(a, b fleet.Export) map[string][]fleet.Export {
		return map[string][]fleet.Export{"c1": {a}, "c2": {b}}
	}
	a := ready("a", "http=8080", "10.9.1.1", "fd00:9:1::1")
	b := ready("b", "http=9090", "10.9.2.1", "fd00:9:2::1")
	for _, c := range []struct {
		name string
		in   map[string][]fleet.Export
		want string
	}{
		{"nobody exports: no import", nil, ""},
		{"a namespace that is not here or on no slice", one("c1", with(export(0, "http=TCP/80", a), func(e *fleet.Export) { e.Namespace = "other" })), ""},
		{"the same name on another slice is another network's", one("c1", with(export(0, "http=TCP/80", a), func(e *fleet.Export) { e.Slice = "lab" })), ""},
		{"one cluster", one("c1", export(0, "http=TCP/80", a)), `
shop/web on pay ClusterSetIP ips=[10.9.0.200] families=[IPv4] by=[c1] oldest=c1
  port http=TCP/80
  c1/a [10.9.1.1] http=8080 ready
`},
		{"two clusters that agree; not ready is kept and flagged", two(export(0, "http=TCP/80", a), export(1, "http=TCP/80", waiting("b", "http=9090", "10.9.2.1"))), `
shop/web on pay ClusterSetIP ips=[10.9.0.200] families=[IPv4] by=[c1 c2] oldest=c1
  port http=TCP/80
  c1/a [10.9.1.1] http=8080 ready
  c2/b [10.9.2.1] http=9090 waiting
`},
		{"both families, the oldest export's first", one("c1", with(export(0, "http=TCP/80", a), func(e *fleet.Export) { e.Families = []string{IPv6, IPv4} })), `
shop/web on pay ClusterSetIP ips=[fd00:9::c8 10.9.0.200] families=[IPv6 IPv4] by=[c1] oldest=c1
  port http=TCP/80
  c1/a [10.9.1.1 fd00:9:1::1] http=8080 ready
`},
		{"a union of ports; each cluster gets its own", two(export(0, "http=TCP/80", a), export(1, "http=TCP/80,stcp=SCTP/142", ready("b", "http=80,stcp=142", "10.9.2.1"))), `
shop/web on pay ClusterSetIP ips=[10.9.0.200] families=[IPv4] by=[c1 c2] oldest=c1
  port http=TCP/80
  port stcp=SCTP/142
  c1/a [10.9.1.1] http=8080 ready
  c2/b [10.9.2.1] http=80,stcp=142 ready
  PortConflict [c2]
`},
		{"one name, two numbers: the oldest wins and the other gets nothing", two(export(0, "http=TCP/80", a), export(1, "http=TCP/81", b)), `
shop/web on pay ClusterSetIP ips=[10.9.0.200] families=[IPv4] by=[c1 c2] oldest=c1
  port http=TCP/80
  c1/a [10.9.1.1] http=8080 ready
  c2/b [10.9.2.1]  ready
  PortConflict [c2]
`},
		{"the oldest by time, not by name", two(export(1, "http=TCP/80", a), export(0, "http=TCP/81", b)), `
shop/web on pay ClusterSetIP ips=[10.9.0.200] families=[IPv4] by=[c1 c2] oldest=c2
  port http=TCP/81
  c1/a [10.9.1.1]  ready
  c2/b [10.9.2.1] http=9090 ready
  PortConflict [c1]
`},
		{"of the same age: by the cluster's name", two(export(0, "http=TCP/80", a), export(0, "http=TCP/81", b)), `
shop/web on pay ClusterSetIP ips=[10.9.0.200] families=[IPv4] by=[c1 c2] oldest=c1
  port http=TCP/80
  c1/a [10.9.1.1] http=8080 ready
  c2/b [10.9.2.1]  ready
  PortConflict [c2]
`},
		{"two names, one number: it is exposed, so it is served under the oldest name", two(export(0, "http=TCP/80", a), export(1, "web=TCP/80", ready("b", "web=9090", "10.9.2.1"))), `
shop/web on pay ClusterSetIP ips=[10.9.0.200] families=[IPv4] by=[c1 c2] oldest=c1
  port http=TCP/80
  c1/a [10.9.1.1] http=8080 ready
  c2/b [10.9.2.1] http=9090 ready
  PortConflict [c2]
`},
		{"two names, two numbers: each to its own cluster", two(export(0, "tcp=TCP/42", ready("a", "tcp=42", "10.9.1.1")), export(1, "tcp2=TCP/4242", ready("b", "tcp2=42", "10.9.2.1"))), `
shop/web on pay ClusterSetIP ips=[10.9.0.200] families=[IPv4] by=[c1 c2] oldest=c1
  port tcp=TCP/42
  port tcp2=TCP/4242
  c1/a [10.9.1.1] tcp=42 ready
  c2/b [10.9.2.1] tcp2=42 ready
  PortConflict [c2]
`},
		{"ports in another order are no conflict", two(export(0, "a=TCP/1,b=TCP/2"), export(1, "b=TCP/2,a=TCP/1")), `
shop/web on pay ClusterSetIP ips=[10.9.0.200] families=[IPv4] by=[c1 c2] oldest=c1
  port a=TCP/1
  port b=TCP/2
`},
		{"headless: no address, names kept, also of pods that wait for their address", one("c1", with(export(0, "http=TCP/80", a), func(e *fleet.Export) {
			e.Headless = true
			e.Endpoints = append(e.Endpoints, fleet.Endpoint{Hostname: "web-1"}, fleet.Endpoint{Pod: "lost"})
			e.Endpoints[len(e.Endpoints)-1].Addrs = []netip.Addr{netip.MustParseAddr("fd00::1")}
		})), `
shop/web on pay Headless ips=[] families=[IPv4] by=[c1] oldest=c1
  port http=TCP/80
  c1/web-1 []  waiting
  c1/a [10.9.1.1] http=8080 ready
`},
		{"headless and not: the oldest decides", two(export(0, "http=TCP/80", a), with(export(1, "http=TCP/80", b), func(e *fleet.Export) { e.Headless = true })), `
shop/web on pay ClusterSetIP ips=[10.9.0.200] families=[IPv4] by=[c1 c2] oldest=c1
  port http=TCP/80
  c1/a [10.9.1.1] http=8080 ready
  c2/b [10.9.2.1] http=9090 ready
  TypeConflict [c2]
`},
		{"nobody speaks for another cluster", one("c1", export(0, "http=TCP/80", func() fleet.Endpoint { e := a; e.Cluster = "c9"; return e }())), `
shop/web on pay ClusterSetIP ips=[10.9.0.200] families=[IPv4] by=[c1] oldest=c1
  port http=TCP/80
  c1/a [10.9.1.1] http=8080 ready
`},
		{"affinity", two(with(export(0, "http=TCP/80"), func(e *fleet.Export) { e.Affinity, e.Timeout = true, 10 }), with(export(1, "http=TCP/80"), func(e *fleet.Export) { e.Affinity, e.Timeout = true, 20 })), `
shop/web on pay ClusterSetIP ips=[10.9.0.200] families=[IPv4] by=[c1 c2] oldest=c1
  port http=TCP/80
  affinity 10s
  SessionAffinityConfigConflict [c2]
`},
		{"affinity or none", two(with(export(0, "http=TCP/80"), func(e *fleet.Export) { e.Affinity = true }), export(1, "http=TCP/80")), `
shop/web on pay ClusterSetIP ips=[10.9.0.200] families=[IPv4] by=[c1 c2] oldest=c1
  port http=TCP/80
  affinity 0s
  SessionAffinityConflict [c2]
`},
		{"everything else, all reasons at once", two(
			with(export(0, "http=TCP/80"), func(e *fleet.Export) {
				e.Families = []string{IPv4, IPv6}
				e.InternalTrafficPolicy, e.TrafficDistribution = "Local", "PreferClose"
				e.Labels, e.Annotations = map[string]string{"l": "1"}, map[string]string{"a": "1"}
			}),
			with(export(1, "http=TCP/80", b), func(e *fleet.Export) { e.Labels = map[string]string{"l": "2"} })), `
shop/web on pay ClusterSetIP ips=[10.9.0.200 fd00:9::c8] families=[IPv4 IPv6] by=[c1 c2] oldest=c1
  port http=TCP/80
  traffic "Local" "PreferClose"
  labels map[l:1] annotations map[a:1]
  c2/b [10.9.2.1 fd00:9:2::1] http=9090 ready
  LabelsConflict [c2]
  AnnotationsConflict [c2]
  InternalTrafficPolicyConflict [c2]
  TrafficDistributionConflict [c2]
  IPFamilyConflict [c2]
`},
		{"defaults written out are no conflict", two(export(0, "http=TCP/80"), with(export(1, "http=TCP/80"), func(e *fleet.Export) { e.InternalTrafficPolicy = "Cluster" })), `
shop/web on pay ClusterSetIP ips=[10.9.0.200] families=[IPv4] by=[c1 c2] oldest=c1
  port http=TCP/80
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, want := show(Merge(input(c.in))), strings.TrimPrefix(c.want, "\n")
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestMergeOnSliceWithoutTheWantedFamily(t *testing.T) {
	in := input(map[string][]fleet.Export{"c1": {export(0, "http=TCP/80", ready("a", "http=80", "fd00:9:1::1"))}})
	in.Families = func(string) []string { return []string{IPv6} }
	im := Merge(in)[0]
	if !reflect.DeepEqual(im.Families, []string{IPv6}) || len(im.IPs) != 1 || !im.IPs[0].Is6() || len(im.Endpoints) != 1 {
		t.Errorf("an IPv4 service on an IPv6 slice is reached by IPv6; got %s", show([]Import{im}))
	}
}

// Whatever order exports, endpoints and maps come in, the import is the same: or else every watch event would write.
func TestMergeDoesNotDependOnOrder(t *testing.T) {
	exports := map[string][]fleet.Export{}
	for c := range 5 {
		cluster := fmt.Sprintf("c%d", c)
		for s := range 7 {
			e := export(c%3, fmt.Sprintf("a=TCP/%d,b=UDP/%d,c%d=TCP/9%d", 80+c%2, 80, c, c))
			e.Name = fmt.Sprintf("s%d", s)
			for p := range 6 {
				e.Endpoints = append(e.Endpoints, ready(fmt.Sprintf("p%d", p), "a=1,b=2", fmt.Sprintf("10.9.%d.%d", c, 10*s+p)))
			}
			exports[cluster] = append(exports[cluster], e)
		}
	}
	want := Merge(input(exports))
	if len(want) != 7 || len(want[0].Endpoints) != 30 {
		t.Fatalf("got %d imports, the first with %d endpoints; want 7 and 30", len(want), len(want[0].Endpoints))
	}
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 7))
		for _, es := range exports {
			r.Shuffle(len(es), func(i, j int) { es[i], es[j] = es[j], es[i] })
			for i := range es {
				eps := slices.Clone(es[i].Endpoints)
				r.Shuffle(len(eps), func(i, j int) { eps[i], eps[j] = eps[j], eps[i] })
				es[i].Endpoints = eps
			}
		}
		if got := Merge(input(exports)); !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: the imports depend on the order of the exports", seed)
		}
	}
}

func TestMergeLeavesItsInputAlone(t *testing.T) {
	e := export(0, "http=TCP/80", ready("a", "http=8080", "10.9.1.1", "fd00:9:1::1"))
	Merge(input(map[string][]fleet.Export{"c1": {e}}))
	if !reflect.DeepEqual(e, export(0, "http=TCP/80", ready("a", "http=8080", "10.9.1.1", "fd00:9:1::1"))) {
		t.Errorf("Merge changed a published export: %+v", e)
	}
}

func TestConditions(t *testing.T) {
	print := func(cs []Condition) string {
		var b strings.Builder
		for _, c := range cs {
			fmt.Fprintf(&b, "%s=%v %s: %s\n", c.Type, c.True, c.Reason, c.Message)
		}
		return b.String()
	}
	im := Merge(input(map[string][]fleet.Export{"c1": {export(0, "http=TCP/80")}, "c2": {with(export(1, "http=TCP/81"), func(e *fleet.Export) { e.Headless = true })}}))[0]
	none := im
	none.IPs, none.Conflicts = nil, nil
	for _, c := range []struct {
		name      string
		got, want string
	}{
		{"no service", print(Invalid(ReasonNoService, "shop", "web")), `
Valid=false NoService: there is no Service shop/web: create it, or delete this ServiceExport
Ready=false Pending: nothing is exported until the export is valid: there is no Service shop/web: create it, or delete this ServiceExport
`},
		{"external name", print(Invalid(ReasonInvalidServiceType, "shop", "web"))[:32], "\nValid=false InvalidServiceType: "},
		{"too many ports", print(Invalid(ReasonTooManyPorts, "shop", "web"))[:26], "\nValid=false TooManyPorts: "},
		{"no slice", print(Invalid(ReasonNamespaceNotOnSlice, "shop", "web")), `
Valid=false NamespaceNotOnSlice: namespace shop is on no slice in this cluster: add it to a Slice (spec.namespaces on the hub, by name or label)
Ready=false Pending: nothing is exported until the export is valid: namespace shop is on no slice in this cluster: add it to a Slice (spec.namespaces on the hub, by name or label)
`},
		{"conflicts", print(Exported(im)), `
Valid=true Valid: the Service can be exported
Ready=true Exported: exported to slice pay as web.shop.svc.clusterset.local
Conflict=true PortConflict,TypeConflict: exports differ from the one of cluster c1, which is the oldest and wins: ports (c2); headless or not (c2); make the Services and ServiceExports equal, or export under another name
`},
		{"none", print(Exported(none)), `
Valid=true Valid: the Service can be exported
Ready=true Exported: exported to slice pay as web.shop.svc.clusterset.local
Conflict=false NoConflicts: exported alike by c1, c2
`},
		{"import", print(Imported(im)), "\nReady=true Ready: web.shop.svc.clusterset.local is answered on slice pay\n"},
		{"import without address", print(Imported(none)), "\nReady=false Pending: no service address on slice pay yet; if this stays, the slice's prefix is used up: see `seaway slice show pay` on the hub\n"},
	} {
		if got, want := c.got, strings.TrimPrefix(c.want, "\n"); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, want)
		}
	}
}
