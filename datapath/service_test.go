package datapath_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"seaway.dev/seaway/datapath/nft"
	"seaway.dev/seaway/datapath/podtest"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

func balance(ip string, port uint16, backends ...string) plan.Balance {
	b := plan.Balance{Service: "shop/web", IP: netip.MustParseAddr(ip), Protocol: fleet.TCP, Port: port}
	for _, at := range backends {
		b.Backends = append(b.Backends, plan.Backend{Addr: addrPort(at), Weight: 1})
	}
	return b
}

// tally asks a service n times, each over a new connection, and counts the answers' names.
func tally(t *testing.T, p *podtest.Pod, proto, at string, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		s, err := podtest.Ask(t, p.NS, proto, addrPort(at))
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		name, _, _ := strings.Cut(s, " ")
		got[name]++
	}
	return got
}

// TestServiceSpreads: new connections go to backends by weight, in every transport and family.
func TestServiceSpreads(t *testing.T) {
	for _, c := range []struct {
		proto  fleet.Protocol
		ip     string
		b1, b2 string
		client string
	}{
		{fleet.TCP, "10.77.1.1", "10.77.0.6:8080", "10.77.0.7:8080", "10.77.0.5"},
		{fleet.UDP, "10.77.1.1", "10.77.0.6:8080", "10.77.0.7:8080", "10.77.0.5"},
		{fleet.SCTP, "10.77.1.1", "10.77.0.6:8080", "10.77.0.7:8080", "10.77.0.5"},
		{fleet.TCP, "fd77::1:1", "[fd77::6]:8080", "[fd77::7]:8080", "fd77::5"},
		{fleet.UDP, "fd77::1:1", "[fd77::6]:8080", "[fd77::7]:8080", "fd77::5"},
		{fleet.SCTP, "fd77::1:1", "[fd77::6]:8080", "[fd77::7]:8080", "fd77::5"},
	} {
		t.Run(fmt.Sprint(c.proto, " ", c.ip), func(t *testing.T) {
			r := newRig(t)
			a, b, d := r.pod("a"), r.pod("b"), r.pod("d")
			proto := strings.ToLower(string(c.proto))
			podtest.Serve(t, b.NS, "b", proto, addrPort(fmt.Sprint(anyOf(c.ip), ":8080")))
			podtest.Serve(t, d.NS, "d", proto, addrPort(fmt.Sprint(anyOf(c.ip), ":8080")))
			s := r.slice("pay", dual, a, b, d)
			bal := balance(c.ip, 80, c.b1, c.b2)
			bal.Protocol, bal.Backends[1].Weight = c.proto, 3
			s.Services = []plan.Balance{bal}
			r.apply(s)
			at := netip.AddrPortFrom(bal.IP, 80).String()
			const n = 80
			got := tally(t, a, proto, at, n)
			// 1:3, so 20 of 80; below 5 or above 40 happens once in 10^5 runs.
			if got["b"]+got["d"] != n || got["b"] < 5 || got["b"] > 40 {
				t.Errorf("answers by backend: %v, want about 20 from b and 60 from d", got)
			}
			if s, _ := podtest.Ask(t, a.NS, proto, addrPort(at)); !strings.HasSuffix(s, " "+c.client) {
				t.Errorf("the backend sees %q, want the client's own address %s", s, c.client)
			}
			r.settled(s)
		})
	}
}

func anyOf(ip string) string {
	if strings.Contains(ip, ":") {
		return "[::]"
	}
	return "0.0.0.0"
}

// TestSCTPPackets: SCTP passes between pods and by services also where the test's kernel has no SCTP sockets, and the
// policy's ports hold for it.
func TestSCTPPackets(t *testing.T) {
	r := newRig(t)
	a, b := r.pod("a"), r.pod("b")
	s := r.slice("pay", dual, a, b)
	for _, c := range []struct{ ip, backend, client string }{
		{"10.77.1.1", "10.77.0.6:8080", "10.77.0.5"}, {"fd77::1:1", "[fd77::6]:8080", "fd77::5"},
	} {
		bal := balance(c.ip, 80, c.backend)
		bal.Protocol = fleet.SCTP
		s.Services = append(s.Services, bal)
		r.apply(s)
		for _, to := range []netip.AddrPort{addrPort(c.backend), netip.AddrPortFrom(bal.IP, 80)} {
			if from, port := podtest.SCTPInit(t, a.NS, b.NS, to); from != c.client || port != 8080 {
				t.Errorf("to %s: port %d from %q arrived, want 8080 from %s", to, port, from, c.client)
			}
		}
	}
	s.Policies = []fleet.Policy{{Name: "in", Pods: s.Attachments[1].Addrs, Ingress: true, AllowIn: []fleet.PolicyRule{
		{Ports: []fleet.PolicyPort{{Protocol: fleet.SCTP, First: 9000}, {Protocol: fleet.TCP, First: 7000}}}}}}
	r.apply(s)
	for port, want := range map[uint16]bool{9000: true, 7000: false} {
		at := netip.AddrPortFrom(s.Attachments[1].Addrs[0], port)
		if from, _ := podtest.SCTPInit(t, a.NS, b.NS, at); (from != "") != want {
			t.Errorf("policy: port %d arrived from %q, want through=%v", port, from, want)
		}
	}
	r.settled(s)
}

// TestBackendLeaves: new connections avoid it, open ones to the others stay, and the change is small.
func TestBackendLeaves(t *testing.T) {
	r := newRig(t)
	a, b, d := r.pod("a"), r.pod("b"), r.pod("d")
	podtest.Serve(t, b.NS, "b", "tcp", addrPort("[::]:8080"))
	podtest.Serve(t, d.NS, "d", "tcp", addrPort("[::]:8080"))
	s := r.slice("pay", "10.77.0.0/16", a, b, d)
	s.Services = []plan.Balance{balance("10.77.1.1", 80, "10.77.0.6:8080")}
	r.apply(s)
	conn, err := podtest.Dial(a.NS, addrPort("10.77.1.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s.Services = []plan.Balance{balance("10.77.1.1", 80, "10.77.0.7:8080")}
	if res := r.apply(s); res.Ops != 2 {
		t.Errorf("another backend: %d changes, want 2 (a slot removed, a slot added)", res.Ops)
	}
	if got := tally(t, a, "tcp", "10.77.1.1:80", 5); got["d"] != 5 {
		t.Errorf("new connections: %v, want all at d", got)
	}
	if got, err := conn.Ask(); err != nil || got != "b 10.77.0.5" {
		t.Errorf("the open connection: %q, %v", got, err)
	}
}

// TestUDPFollows: a client that goes on sending from one port is sent to the new backend when the old one leaves.
func TestUDPFollows(t *testing.T) {
	r := newRig(t)
	a, b, d := r.pod("a"), r.pod("b"), r.pod("d")
	podtest.Serve(t, b.NS, "b", "udp", addrPort("[::]:8080"))
	podtest.Serve(t, d.NS, "d", "udp", addrPort("[::]:8080"))
	s := r.slice("pay", dual, a, b, d)
	for _, c := range []struct{ ip, b, d string }{
		{"10.77.1.1", "10.77.0.6:8080", "10.77.0.7:8080"}, {"fd77::1:1", "[fd77::6]:8080", "[fd77::7]:8080"},
	} {
		with := func(backend string) {
			bal := balance(c.ip, 53, backend)
			bal.Protocol = fleet.UDP
			s.Services = []plan.Balance{bal}
			r.apply(s)
		}
		with(c.b)
		conn := podtest.DialUDP(t, a.NS, netip.AddrPortFrom(netip.MustParseAddr(c.ip), 53))
		if got, err := conn.Ask(); err != nil || !strings.HasPrefix(got, "b ") {
			t.Fatalf("%q, %v", got, err)
		}
		with(c.d)
		if got, err := conn.Ask(); err != nil || !strings.HasPrefix(got, "d ") {
			t.Errorf("after the backend left: %q, %v; want an answer from d", got, err)
		}
	}
}

// TestNoBackend: a service without backends, a port that it does not have, an address that nobody has: an error at
// once instead of a hang.
func TestNoBackend(t *testing.T) {
	r := newRig(t)
	a := r.pod("a")
	s := r.slice("pay", dual, a)
	for _, ip := range []string{"10.77.1.1", "fd77::1:1"} {
		empty := balance(ip, 80)
		udp := empty
		udp.Protocol = fleet.UDP
		s.Services = append(s.Services, empty, udp)
	}
	r.apply(s)
	for _, c := range []struct {
		proto, at string
		want      error
	}{
		{"tcp", "10.77.1.1:80", syscall.ECONNREFUSED}, {"udp", "10.77.1.1:80", syscall.ECONNREFUSED},
		{"tcp", "10.77.1.1:81", syscall.ECONNREFUSED}, {"udp", "10.77.1.1:81", syscall.ECONNREFUSED},
		{"tcp", "[fd77::1:1]:80", syscall.ECONNREFUSED}, {"udp", "[fd77::1:1]:80", syscall.ECONNREFUSED},
		{"tcp", "10.77.9.9:80", syscall.ECONNREFUSED}, {"tcp", "[fd77::9:9]:80", syscall.ECONNREFUSED},
		{"udp", "10.77.9.9:80", syscall.ECONNREFUSED}, {"udp", "[fd77::9:9]:80", syscall.ECONNREFUSED},
	} {
		started := time.Now()
		_, err := podtest.Ask(t, a.NS, c.proto, addrPort(c.at))
		if !errors.Is(err, c.want) {
			t.Errorf("%s %s: %v, want %v", c.proto, c.at, err, c.want)
		}
		if took := time.Since(started); took > 300*time.Millisecond {
			t.Errorf("%s %s: the refusal took %v", c.proto, c.at, took)
		}
	}
	r.settled(s)
}

// TestPodsOwnAddresses: what a pod sends to the address that another cluster gave a pod goes to that pod by the slice, and
// its answers come from where it was sent; what is in that cluster's network and no pod's of the slice is refused at once.
func TestPodsOwnAddresses(t *testing.T) {
	r := newRig(t)
	a, b := r.pod("a"), r.pod("b")
	s := r.slice("pay", dual, a, b)
	s.Hosts = slices.Concat(s.Attachments[0].Addrs, s.Attachments[1].Addrs)
	s.Networks = []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16"), netip.MustParsePrefix("fd02::/64")}
	for i := range s.Attachments {
		s.Attachments[i].Prefixes = slices.Concat(s.Prefixes, s.Networks)
	}
	s.Aliases = []plan.Alias{
		{Addr: netip.MustParseAddr("10.2.0.9"), To: netip.MustParseAddr("10.77.0.6")},
		{Addr: netip.MustParseAddr("fd02::9"), To: netip.MustParseAddr("fd77::6")},
	}
	r.apply(s)
	for _, proto := range []string{"tcp", "udp"} {
		podtest.Serve(t, b.NS, "b", proto, addrPort("0.0.0.0:8080"))
		podtest.Serve(t, b.NS, "b", proto, addrPort("[::]:8086"))
	}
	ask := func(proto, at string, want string, refused bool) {
		t.Helper()
		started := time.Now()
		got, err := podtest.Ask(t, a.NS, proto, addrPort(at))
		if refused {
			if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(started) > 2*time.Second {
				t.Errorf("%s %s: %q, %v after %v; want it refused at once", proto, at, got, err, time.Since(started))
			}
			return
		}
		if err != nil || got != want {
			t.Errorf("%s %s: %q, %v; want %q", proto, at, got, err, want)
		}
	}
	for _, proto := range []string{"tcp", "udp"} {
		ask(proto, "10.2.0.9:8080", "b 10.77.0.5", false)
		ask(proto, "[fd02::9]:8086", "b fd77::5", false)
		ask(proto, "10.2.0.10:8080", "", true)
		ask(proto, "[fd02::10]:8086", "", true)
	}
	r.pings(a.NS, "10.2.0.9 fd02::9")
	r.settled(s)

	// Its host dies: who waits for an answer from it is told.
	_, waiting := open(t, a, "tcp", "10.2.0.9:8080")
	dead := s
	dead.Hosts = s.Attachments[0].Addrs
	if _, err := r.kernel.Steer(t.Context(), []plan.Slice{dead}); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; !errors.Is(err, syscall.ECONNABORTED) { // it waits 5 s at most
		t.Errorf("a reader of a pod whose host is gone: %v, want %v", err, syscall.ECONNABORTED)
	}
	ask("tcp", "10.2.0.9:8080", "", true)

	// The pod's policy holds as if it had been called by its slice address.
	s.Policies = []fleet.Policy{{Name: "deny", Pods: s.Attachments[1].Addrs, Ingress: true}}
	r.apply(s)
	if got, err := podtest.Ask(t, a.NS, "tcp", addrPort("10.2.0.9:8080")); err == nil {
		t.Errorf("a policy that lets nothing in was passed by: %q", got)
	}
	s.Policies = nil

	// It goes: its address is nobody's, and what had it before is let go.
	s.Aliases = s.Aliases[1:]
	r.apply(s)
	ask("tcp", "10.2.0.9:8080", "", true)
	ask("tcp", "[fd02::9]:8086", "b fd77::5", false)

	// The slice goes back to its own addresses: nothing of this is left.
	s.Aliases, s.Networks = nil, nil
	for i := range s.Attachments {
		s.Attachments[i].Prefixes = s.Prefixes
	}
	r.apply(s)
	if routes := r.run(a.NS, "ip route show table all"); strings.Contains(routes, "10.2.0.0/16") {
		t.Errorf("a route is left in the pod:\n%s", routes)
	}
	ask("tcp", "10.77.0.6:8080", "b 10.77.0.5", false)
	r.settled(s)
}

// TestHairpin: a pod that is its service's only backend reaches itself by the service.
func TestHairpin(t *testing.T) {
	for _, c := range []struct{ ip, self string }{{"10.77.1.1", "10.77.0.5:8080"}, {"fd77::1:1", "[fd77::5]:8080"}} {
		for _, proto := range []string{"tcp", "udp"} {
			r := newRig(t)
			a := r.pod("a")
			podtest.Serve(t, a.NS, "a", proto, addrPort(anyOf(c.ip)+":8080"))
			s := r.slice("pay", dual, a)
			b := balance(c.ip, 80, c.self)
			b.Protocol = fleet.Protocol(strings.ToUpper(proto))
			s.Services = []plan.Balance{b}
			// Even under a policy that allows nothing: a pod may always reach itself.
			s.Policies = []fleet.Policy{{Name: "deny", Pods: s.Attachments[0].Addrs, Ingress: true, Egress: true}}
			r.apply(s)
			got, err := podtest.Ask(t, a.NS, proto, netip.AddrPortFrom(b.IP, 80))
			if err != nil || got != "a "+c.ip {
				t.Errorf("%s %s: %q, %v; want an answer from itself, seen as the service", proto, c.ip, got, err)
			}
		}
	}
}

// TestAffinity: a client stays with its backend, until that goes.
func TestAffinity(t *testing.T) {
	r := newRig(t)
	a, b, d, e := r.pod("a"), r.pod("b"), r.pod("d"), r.pod("e")
	backends := map[string]string{"b": "10.77.0.6:8080", "d": "10.77.0.7:8080", "e": "10.77.0.8:8080"}
	v6 := map[string]string{"b": "[fd77::6]:8080", "d": "[fd77::7]:8080", "e": "[fd77::8]:8080"}
	for _, p := range []*podtest.Pod{b, d, e} {
		podtest.Serve(t, p.NS, p.UID, "tcp", addrPort("[::]:8080"))
	}
	s := r.slice("pay", dual, a, b, d, e)
	with := func(names ...string) {
		four, six := balance("10.77.1.1", 80), balance("fd77::1:1", 80)
		four.Affinity, six.Affinity = 600, 600
		for _, n := range names {
			four.Backends = append(four.Backends, plan.Backend{Addr: addrPort(backends[n]), Weight: 1})
			six.Backends = append(six.Backends, plan.Backend{Addr: addrPort(v6[n]), Weight: 1})
		}
		s.Services = []plan.Balance{four, six}
		r.apply(s)
	}
	for _, at := range []string{"10.77.1.1:80", "[fd77::1:1]:80"} {
		with("b", "d", "e")
		first := tally(t, a, "tcp", at, 20)
		if len(first) != 1 {
			t.Fatalf("%s: one client was at %v, want one backend", at, first)
		}
		r.settled(s)
		var left []string
		for _, n := range []string{"b", "d", "e"} {
			if first[n] == 0 {
				left = append(left, n)
			}
		}
		with(left...)
		second := tally(t, a, "tcp", at, 20)
		if len(second) != 1 || second[left[0]]+second[left[1]] != 20 {
			t.Errorf("%s: after the backend left the client was at %v, want one of %v", at, second, left)
		}
	}
}

// TestForgedSource: a pod can send from no address but its own; with the rules gone the same packet passes.
func TestForgedSource(t *testing.T) {
	r := newRig(t)
	a, b := r.pod("a"), r.pod("b")
	s := r.slice("pay", "10.77.0.0/16", a, b)
	r.apply(s)
	ear := podtest.Listen(t, b.NS, addrPort("10.77.0.6:5000"))
	podtest.Forge(t, a.NS, plan.PodLink, addrPort("10.77.0.5:1"), addrPort("10.77.0.6:5000"))
	if got := podtest.Heard(ear); got != "10.77.0.5" {
		t.Fatalf("the pod's own address: heard %q", got)
	}
	ns := r.open(s)
	forged := []string{"10.77.0.9:1", "10.77.0.6:1", "10.99.0.1:1", "169.254.77.1:1", "127.0.0.1:1", a.IPs[0].String() + ":1"}
	for _, from := range forged {
		podtest.Forge(t, a.NS, plan.PodLink, addrPort(from), addrPort("10.77.0.6:5000"))
		if got := podtest.Heard(ear); got != "" {
			t.Errorf("a datagram from %s came through as from %s", from, got)
		}
	}
	drops, err := nft.Drops(ns)
	if err != nil || drops["forged IPv4 source"] != uint64(len(forged)) {
		t.Errorf("counted %v, %v; want %d forged IPv4 sources", drops, err, len(forged))
	}
	r.run(ns, "nft flush chain inet seaway arrive")
	podtest.Forge(t, a.NS, plan.PodLink, addrPort("10.77.0.9:1"), addrPort("10.77.0.6:5000"))
	if got := podtest.Heard(ear); got != "10.77.0.9" {
		t.Errorf("control: without the rules the forged datagram should pass, heard %q", got)
	}
}

// TestForeignDestination: a pod that sends what is not the slice's into its link is refused.
func TestForeignDestination(t *testing.T) {
	r := newRig(t)
	a := r.pod("a")
	s := r.slice("pay", "10.77.0.0/16", a)
	r.apply(s)
	r.run(a.NS, "ip route add 192.0.2.0/24 via 169.254.77.1 dev slice0 onlink src 10.77.0.5")
	r.run(a.NS, "ip rule add pref 7600 to 192.0.2.0/24 lookup main")
	if _, err := podtest.Ask(t, a.NS, "udp", addrPort("192.0.2.1:53")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v, want a refusal at once", err)
	}
	// Even if there were a way: the rules know the slice's prefixes.
	ns := r.open(s)
	r.run(ns, "ip route add 192.0.2.0/24 dev "+s.Attachments[0].Link)
	if _, err := podtest.Ask(t, a.NS, "udp", addrPort("192.0.2.1:53")); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("%v, want a refusal at once", err)
	}
	drops, _ := nft.Drops(ns)
	if drops["outside the slice"] == 0 {
		t.Errorf("not counted: %v", drops)
	}
}

// TestPolicy: a pod that no policy selects is open; a selected one gets and sends what its policies allow together.
func TestPolicy(t *testing.T) {
	r := newRig(t)
	a, b, c := r.pod("a"), r.pod("b"), r.pod("c")
	s := r.slice("pay", dual, a, b, c)
	for _, p := range []*podtest.Pod{b, c} {
		for _, port := range []int{80, 81} {
			podtest.Serve(t, p.NS, p.UID, "tcp", addrPort(fmt.Sprintf("[::]:%d", port)))
			podtest.Serve(t, p.NS, p.UID, "udp", addrPort(fmt.Sprintf("[::]:%d", port)))
		}
	}
	addr := func(i, family int) netip.Addr { return s.Attachments[i].Addrs[family] }
	only := func(i int) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(addr(i, 0), 32), netip.PrefixFrom(addr(i, 1), 128)}
	}
	tcp80 := []fleet.PolicyPort{{Protocol: fleet.TCP, First: 80}}
	check := func(what string, from *podtest.Pod, proto string, to, port int, want bool) {
		t.Helper()
		for family := range 2 {
			_, err := podtest.Ask(t, from.NS, proto, netip.AddrPortFrom(addr(to, family), uint16(port)))
			if (err == nil) != want {
				t.Errorf("%s: %s to %s %d: %v, want through=%v", what, from.UID, addr(to, family), port, err, want)
			}
		}
	}
	r.apply(s)
	check("open", a, "tcp", 1, 81, true)

	in := fleet.Policy{Name: "in", Pods: s.Attachments[1].Addrs, Ingress: true,
		AllowIn: []fleet.PolicyRule{{Peers: only(0), Ports: tcp80}}}
	s.Policies = []fleet.Policy{in}
	r.apply(s)
	check("ingress", a, "tcp", 1, 80, true)
	check("ingress", a, "tcp", 1, 81, false)
	check("ingress", a, "udp", 1, 80, false)
	check("ingress", c, "tcp", 1, 80, false)
	check("ingress leaves egress open", b, "tcp", 2, 81, true)
	if silent := r.silent(a.NS, addr(1, 0).String(), 300*time.Millisecond); len(silent) == 0 {
		t.Error("ingress: ICMP passed, which no rule allows")
	}
	r.settled(s)

	more := fleet.Policy{Name: "more", Pods: s.Attachments[1].Addrs, Ingress: true,
		AllowIn: []fleet.PolicyRule{{Peers: only(2)}, {Ports: []fleet.PolicyPort{{Protocol: fleet.UDP, First: 80, Last: 81}}}}}
	s.Policies = []fleet.Policy{in, more}
	r.apply(s)
	check("policies add up", a, "tcp", 1, 80, true)
	check("policies add up", a, "tcp", 1, 81, false)
	check("policies add up", a, "udp", 1, 81, true)
	check("policies add up", c, "tcp", 1, 81, true)
	r.pings(c.NS, addr(1, 0).String()+" "+addr(1, 1).String())

	out := fleet.Policy{Name: "out", Pods: s.Attachments[0].Addrs, Egress: true,
		AllowOut: []fleet.PolicyRule{{Peers: only(1)}}}
	s.Policies = []fleet.Policy{in, out}
	r.apply(s)
	check("egress and ingress", a, "tcp", 1, 80, true)
	check("egress allows, ingress does not", a, "tcp", 1, 81, false)
	check("egress", a, "tcp", 2, 80, false)
	r.settled(s)

	s.Policies = nil
	r.apply(s)
	check("policies gone", a, "tcp", 2, 80, true)
	r.settled(s)
}

// TestManyServices: what a change costs does not grow with how many services there are.
func TestManyServices(t *testing.T) {
	r := newRig(t)
	a, b := r.pod("a"), r.pod("b")
	podtest.Serve(t, b.NS, "b", "tcp", addrPort("[::]:8080"))
	s := r.slice("pay", "10.77.0.0/16", a, b)
	ip := netip.MustParseAddr("10.77.128.0")
	for range 2000 {
		ip = ip.Next()
		s.Services = append(s.Services, balance(ip.String(), 80, "10.77.0.6:8080", "10.77.3.3:8080"))
	}
	started := time.Now()
	r.apply(s)
	t.Logf("2000 services from nothing: %v", time.Since(started))
	s.Services = slices.Clone(s.Services) // a plan that was handed out is not changed
	s.Services[1000] = balance(s.Services[1000].IP.String(), 80, "10.77.0.6:8080")
	started = time.Now()
	res := r.apply(s)
	t.Logf("one of 2000 changed: %v", time.Since(started))
	if res.Ops > 10 {
		t.Errorf("one service of 2000 changed: %d changes, want a handful", res.Ops)
	}
	if got := tally(t, a, "tcp", s.Services[1000].IP.String()+":80", 10); got["b"] != 10 {
		t.Errorf("answers: %v", got)
	}
	started = time.Now()
	r.settled(s)
	t.Logf("twice again, once read anew: %v", time.Since(started))
}
