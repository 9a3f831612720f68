package node

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	dnslib "github.com/miekg/dns"

	"seaway.dev/seaway/discovery/dns"
	"seaway.dev/seaway/fleet"
)

// stretched is an intent with a headless service of StatefulSets in some clusters.
func stretched(rev uint64, clusters ...string) fleet.Intent {
	in := intent(rev, "a")
	s := fleet.Service{Namespace: "kv", Name: "etcd", Slice: "pay", Headless: true, Ports: []fleet.Port{{Name: "client", Protocol: fleet.TCP, Port: 2379}}}
	for i, c := range clusters {
		s.Clusters = append(s.Clusters, c)
		s.Endpoints = append(s.Endpoints, fleet.Endpoint{
			Cluster: c, Node: "n1", Pod: "etcd-0", Hostname: "etcd-0", Ready: true,
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 77, byte(1 + i), 1})}, Ports: map[string]uint16{"client": 2379},
		})
	}
	if len(clusters) > 0 {
		in.Services = []fleet.Service{s}
	}
	return in
}

const (
	first   = "etcd-0.c1.etcd.kv.svc.clusterset.local"
	second  = "etcd-0.c2.etcd.kv.svc.clusterset.local"
	nowhere = "nowhere.kv.svc.clusterset.local"
)

// code is what the node's DNS says about a name's address.
func code(st *dns.State, name string) string {
	a := st.Zone().Lookup(name, dnslib.TypeA)
	if a.Code == dnslib.RcodeSuccess && len(a.Records) == 0 {
		return "nothing"
	}
	return dnslib.RcodeToString[a.Code]
}

func expectNames(t *testing.T, st *dns.State, when string, want ...string) {
	t.Helper()
	for i, name := range []string{first, second, nowhere} {
		if got := code(st, name); got != want[i] {
			t.Errorf("%s: %s is %s, want %s", when, name, got, want[i])
		}
	}
}

// TestWhatIsNotKnownIsNotDenied: a node that took up what it had saved, or whose controller is away, does not know what
// came to be since; it says SERVFAIL about a name that it lacks, never NXDOMAIN. What it knows it answers.
func TestWhatIsNotKnownIsNotDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, st := newBench(t), new(dns.State)
		b.cfg.OnIntent = st.OnIntent
		saved := stretched(3, "c1")
		if _, err := saveIntent(b.cfg.StateDir+"/intent.json", &saved); err != nil {
			t.Fatal(err)
		}
		b.controller.setAway(true)
		b.start(t)
		pause(time.Minute)
		expectNames(t, st, "as saved", "NOERROR", "SERVFAIL", "SERVFAIL")
		b.controller.setAway(false)
		pause(16 * time.Second)
		expectNames(t, st, "connected, and nothing heard yet", "NOERROR", "SERVFAIL", "SERVFAIL")
		b.controller.tell(t, stretched(4, "c1", "c2"))
		pause(time.Second)
		expectNames(t, st, "as told", "NOERROR", "NOERROR", "NXDOMAIN")
		b.controller.setAway(true)
		pause(time.Minute)
		expectNames(t, st, "controller away", "NOERROR", "NOERROR", "SERVFAIL")
	})
}

// TestAnUnsureControllerTakesNothingAway: a controller that has just taken over knows what was written down a while ago.
// Until it says that it knows all, what it lacks stays; then what it does not name is gone.
func TestAnUnsureControllerTakesNothingAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, st := newBench(t), new(dns.State)
		b.cfg.OnIntent = st.OnIntent
		a := b.start(t)
		synctest.Wait()
		b.controller.tell(t, stretched(9, "c1", "c2"))
		pause(time.Second)
		expectNames(t, st, "as told", "NOERROR", "NOERROR", "NXDOMAIN")
		old := stretched(1)
		old.Unsure, old.Epoch = true, 2
		b.controller.tell(t, old)
		pause(time.Second)
		expectNames(t, st, "by one who knows no services", "NOERROR", "NOERROR", "SERVFAIL")
		old = stretched(2, "c1")
		old.Unsure, old.Epoch = true, 2
		b.controller.tell(t, old)
		pause(time.Second)
		expectNames(t, st, "by one who knows a part", "NOERROR", "NOERROR", "SERVFAIL")
		if r := b.controller.last(t); r.IntentRev != 2 {
			t.Errorf("revision %d is reported, want 2", r.IntentRev)
		}
		a.mu.Lock()
		n := len(a.intent.Services[0].Endpoints)
		a.mu.Unlock()
		if n != 2 {
			t.Errorf("rules are made of %d endpoints, want 2", n)
		}
		sure := stretched(3, "c1")
		sure.Epoch = 2
		b.controller.tell(t, sure)
		pause(time.Second)
		expectNames(t, st, "by one who knows all", "NOERROR", "NXDOMAIN", "NXDOMAIN")
	})
}

// TestNewsAreSavedSoon: what came in a row is on disk a moment later although nothing else happens.
func TestNewsAreSavedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.kernel.running["a"] = true
		b.start(t)
		synctest.Wait()
		b.controller.tell(t, stretched(1))
		synctest.Wait()
		b.controller.tell(t, stretched(2, "c1"))
		synctest.Wait()
		b.controller.tell(t, stretched(3, "c1", "c2"))
		pause(savePace + 100*time.Millisecond)
		in, err := loadIntent(b.cfg.StateDir+"/intent.json", "n1")
		if err != nil || in == nil || in.Rev != 3 {
			t.Fatalf("saved: %+v, %v; want revision 3", in, err)
		}
	})
}
