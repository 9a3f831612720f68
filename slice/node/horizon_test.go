package node

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"seaway.dev/seaway/fleet"
)

// wide is an intent with a pod here, one on c2/n1 and one on c3/n1, and two services of the latter two: web with an
// address, db headless.
func wide() fleet.Intent {
	in := intent(1, "a")
	ports := map[string]uint16{"http": 8080}
	var ends []fleet.Endpoint
	for i, c := range []string{"c2", "c3"} {
		addr := netip.AddrFrom4([4]byte{10, 77, byte(2 + i), 1})
		in.Pods = append(in.Pods, fleet.Pod{Namespace: "shop", Name: "web", Slice: "pay", Cluster: c, Node: "n1", Addrs: []netip.Addr{addr}})
		ends = append(ends, fleet.Endpoint{Cluster: c, Node: "n1", Pod: "web", Hostname: "web", Addrs: []netip.Addr{addr}, Ready: true, Ports: ports})
	}
	http := []fleet.Port{{Name: "http", Protocol: fleet.TCP, Port: 80}}
	in.Services = []fleet.Service{
		{Namespace: "shop", Name: "db", Slice: "pay", Headless: true, Ports: http, Endpoints: ends},
		{Namespace: "shop", Name: "web", Slice: "pay", IPs: []netip.Addr{netip.MustParseAddr("10.77.9.9")}, Ports: http, Endpoints: ends},
	}
	return in
}

// names is a DNS that remembers what it was told.
type names struct {
	mu sync.Mutex
	in fleet.Intent
}

func (n *names) told(in fleet.Intent) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.in = in
}

// text says what DNS has and what the kernel was last steered by, in one line.
func (b *bench) text(n *names) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	var db, web, hosts []string
	for _, e := range n.in.Services[0].Endpoints {
		if e.Ready {
			db = append(db, e.Cluster)
		}
	}
	if len(b.kernel.steered) == 0 {
		return fmt.Sprintf("db %v", db)
	}
	s := b.kernel.steered[0]
	for _, e := range s.Services[0].Backends {
		web = append(web, fmt.Sprintf("%v*%d", e.Addr.Addr(), e.Weight))
	}
	for _, h := range s.Hosts {
		hosts = append(hosts, h.String())
	}
	return fmt.Sprintf("db %v web %v hosts %v", db, web, hosts)
}

// TestReachDecides: a node that cannot be reached takes its endpoints out of rules and names at once, with the
// controller away; it comes back after it was watched; with nobody reachable the last answer stands and says so.
func TestReachDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, n := newBench(t), &names{}
		b.kernel.running["a"] = true
		b.cfg.OnIntent = n.told
		a := b.start(t)
		synctest.Wait()
		b.controller.tell(t, wide())
		pause(time.Second)
		b.controller.setAway(true)
		see := func(c2, c3 fleet.ReachState) {
			b.tunnel.see(fleet.Reach{Node: "c2/n1", State: c2, RTT: 40 * time.Millisecond}, fleet.Reach{Node: "c3/n1", State: c3, RTT: 20 * time.Millisecond})
			synctest.Wait()
		}
		want := func(what, text string, problems ...string) {
			t.Helper()
			if got := b.text(n); got != text {
				t.Errorf("%s:\n got %s\nwant %s", what, got, text)
			}
			var got []string
			for _, p := range a.state().Problems {
				if p.Reason == "ServiceUnreachable" {
					got = append(got, p.Where)
				}
			}
			if strings.Join(got, " ") != strings.Join(problems, " ") {
				t.Errorf("%s: problems %v, want %v", what, got, problems)
			}
		}
		see(fleet.ReachUp, fleet.ReachUp)
		want("nearest first", "db [c3 c2] web [10.77.2.1*1 10.77.3.1*2] hosts [10.77.0.1 10.77.2.1 10.77.3.1]")
		applies := b.kernel.applies
		see(fleet.ReachUp, fleet.ReachDown)
		want("one down", "db [c2] web [10.77.2.1*1] hosts [10.77.0.1 10.77.2.1]")
		if b.kernel.applies != applies {
			t.Error("a whole round was made for it")
		}
		see(fleet.ReachDown, fleet.ReachDown)
		want("all down", "db [c3 c2] web [10.77.2.1*1 10.77.3.1*2] hosts [10.77.0.1]", "service shop/db", "service shop/web")
		see(fleet.ReachDown, fleet.ReachUp)
		want("back, and nobody better", "db [c3] web [10.77.3.1*1] hosts [10.77.0.1 10.77.3.1]")
		pause(1100 * time.Millisecond)
		want("watched", "db [c3] web [10.77.3.1*1] hosts [10.77.0.1 10.77.3.1]")
		see(fleet.ReachUp, fleet.ReachUp)
		want("the other back, but watched", "db [c3] web [10.77.3.1*1] hosts [10.77.0.1 10.77.2.1 10.77.3.1]")
		pause(1100 * time.Millisecond)
		want("all back", "db [c3 c2] web [10.77.2.1*1 10.77.3.1*2] hosts [10.77.0.1 10.77.2.1 10.77.3.1]")

		// The tunnel's process goes: what was last measured stands.
		steers := b.kernel.steers
		b.tunnel.mu.Lock()
		b.tunnel.down = true
		b.tunnel.rev++
		news := b.tunnel.news
		b.tunnel.news = nil
		b.tunnel.mu.Unlock()
		if news != nil {
			close(news)
		}
		pause(time.Minute)
		if b.kernel.steers != steers {
			t.Errorf("without news from the tunnel it steered %d times", b.kernel.steers-steers)
		}
	})
}

// TestSteadyReachCostsNothing: round trips that wobble change nothing.
func TestSteadyReachCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.kernel.running["a"] = true
		b.start(t)
		synctest.Wait()
		b.controller.tell(t, wide())
		pause(time.Second)
		for i := range 50 {
			b.tunnel.see(fleet.Reach{Node: "c2/n1", State: fleet.ReachUp, RTT: time.Duration(30+i%7) * time.Millisecond, Loss: float64(i) / 1000})
			pause(100 * time.Millisecond)
		}
		if b.kernel.steers > 1 {
			t.Errorf("steered %d times, want once", b.kernel.steers)
		}
	})
}

// TestOthersSightsOrderNames: what a node measured is reported; a node that measures nothing answers names by what others
// measured, keeps them all when nobody can be reached, and steers nothing by it.
func TestOthersSightsOrderNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, n := newBench(t), &names{}
		b.cfg.OnIntent = n.told
		b.start(t)
		synctest.Wait()
		blind := wide()
		blind.Slices, blind.Pods = nil, nil // this node hosts nothing
		tell := func(rev uint64, sights ...fleet.Sight) string {
			blind.Rev, blind.Sights = rev, sights
			b.controller.tell(t, blind)
			pause(time.Second)
			return b.text(n)
		}
		for i, c := range []struct {
			want   string
			sights []fleet.Sight
		}{
			{"db [c2 c3]", nil},
			{"db [c3 c2]", []fleet.Sight{{Node: "c2/n1", Distance: 6}, {Node: "c3/n1", Distance: 4}}},
			{"db [c2]", []fleet.Sight{{Node: "c2/n1", Distance: 6}, {Node: "c3/n1", Down: true}}},
			{"db [c2 c3]", []fleet.Sight{{Node: "c2/n1", Down: true}, {Node: "c3/n1", Down: true}}},
		} {
			if got := tell(uint64(i+1), c.sights...); got != c.want {
				t.Errorf("told of %v: %s, want %s", c.sights, got, c.want)
			}
		}
		if b.kernel.steers != 0 {
			t.Errorf("it steered %d times", b.kernel.steers)
		}
		b.tunnel.see(fleet.Reach{Node: "c2/n1", State: fleet.ReachDown}, fleet.Reach{Node: "c3/n1", State: fleet.ReachUp, RTT: 20 * time.Millisecond})
		pause(time.Second)
		if got := fmt.Sprint(b.controller.last(t).Sights); got != "[{c2/n1 true false 0} {c3/n1 false false 5}]" {
			t.Errorf("it reports %s", got)
		}
	})
}
