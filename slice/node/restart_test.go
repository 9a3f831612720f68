package node

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/datapath/netnstest"
	"seaway.dev/seaway/fleet"
)

// TestAgentRestartLosesNoPacket: datagrams between pods of two clusters, by address and by a service, pass while the
// agents of both are stopped and started again, with what they wrote down and nothing else. All are counted.
func TestAgentRestartLosesNoPacket(t *testing.T) {
	netnstest.NeedRoot(t)
	duo := newDuo(t, "10.77.0.0/16", "fd77::/64")
	one, two := duo.one, duo.two
	duo.pod(t, one, "a", "10.77.0.1 fd77::1")
	b := duo.pod(t, two, "b", "10.77.16.1 fd77::2")
	duo.services = []fleet.Service{{Namespace: "shop", Name: "web", Slice: "pay", IPs: []netip.Addr{netip.MustParseAddr("10.77.15.1")},
		Ports: []fleet.Port{{Name: "dns", Protocol: fleet.UDP, Port: 53}}, Endpoints: []fleet.Endpoint{{
			Cluster: "c2", Node: "n2", Addrs: b.Addrs, Ready: true, Ports: map[string]uint16{"dns": 9000}}}}}
	duo.begin(t)

	to := map[string]string{"IPv4": "10.77.16.1:9000", "IPv6": "[fd77::2]:9000", "service": "10.77.15.1:53"}
	echo(t, two.running["b"].NS, ":9000")
	// count keeps streams going while something is done, and returns how many datagrams had no answer.
	count := func(do func()) (sent, lost int) {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		var all, missing atomic.Int64
		for name, addr := range to {
			s := newCounted(t, one.running["a"].NS, addr)
			wg.Go(func() {
				n, gone := s.run(stop)
				if gone > 0 {
					t.Logf("%s: %d of %d datagrams lost", name, gone, n)
				}
				all.Add(int64(n))
				missing.Add(int64(gone))
			})
		}
		do()
		close(stop)
		wg.Wait()
		return int(all.Load()), int(missing.Load())
	}
	restart := func(runtime string) (sent, lost int) {
		for _, addr := range to { // sessions are made, ways measured
			newCounted(t, one.running["a"].NS, addr).until(t)
		}
		sent, lost = count(func() {
			one.stopAgent()
			two.stopAgent()
			silent := runtime != "answers"
			if silent { // neither it nor a look into processes says where the pods are
				one.boxes.Set("a", nil)
				two.boxes.Set("b", nil)
			}
			one.startAgent()
			two.startAgent()
			duo.listen(t)
			if silent {
				duo.both(t, "a pod that is not found", func(r fleet.Report) bool { return len(r.Attachments) == 1 && !r.Attachments[0].Attached })
				one.boxes.Set("a", one.running["a"].NS)
				two.boxes.Set("b", two.running["b"].NS)
			}
			duo.tell(t)
			duo.attached(t)
		})
		t.Logf("the runtime %s: %d datagrams, %d lost", runtime, sent, lost)
		return sent, lost
	}
	for _, runtime := range []string{"answers", "answers", "does not answer at first"} {
		// What a restart loses it loses each time; what a machine with twenty programs waiting for a core loses, it does not.
		sent, lost := restart(runtime)
		for again := 0; lost > 0 && again < 2; again++ {
			sent, lost = restart(runtime)
		}
		if lost > 0 || sent < 10 {
			t.Errorf("the runtime %s: %d of %d datagrams lost while the agents were restarted, in each of three tries; want none", runtime, lost, sent)
		}
	}
	// The control: without the tunnel they are lost, and counted.
	if _, lost := count(func() {
		two.stopTunnel()
		newCounted(t, one.running["a"].NS, to["IPv4"]).gone(t)
		two.startTunnel()
		newCounted(t, one.running["a"].NS, to["IPv4"]).until(t)
	}); lost == 0 {
		t.Error("the tunnel was restarted, and no datagram is missed: the count sees nothing")
	}
}

// TestTheFirstReportIsWhole: an agent that was restarted tells others nothing before it has looked, because everybody
// lets go of a node without keys; and while its tunnel cannot be asked, its keys are what they were.
func TestTheFirstReportIsWhole(t *testing.T) {
	for name, down := range map[string]bool{"the tunnel is slow": false, "the tunnel is away": true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.kernel.running["a"] = true
			b.tunnel.slow, b.tunnel.down = 300*time.Millisecond, down
			key := fleet.Key{1, 2, 3}
			b.tunnel.keys = map[string]fleet.Key{"pay": key, fleet.ManagementSlice: {4}}
			in := intent(3, "a")
			in.Clusters = []fleet.Cluster{{Name: "c1", Nodes: []fleet.Node{
				{Name: "n1", Cluster: "c1", Keys: b.tunnel.keys}, {Name: "n2", Cluster: "c1", Keys: map[string]fleet.Key{"pay": {9}, "other": {9}}},
			}}}
			if _, err := saveIntent(b.cfg.StateDir+"/intent.json", &in); err != nil {
				t.Fatal(err)
			}
			b.start(t)
			pause(5 * time.Second)
			b.controller.mu.Lock()
			defer b.controller.mu.Unlock()
			if len(b.controller.reports) == 0 {
				t.Fatalf("%s: no report", name)
			}
			for i, r := range b.controller.reports {
				if len(r.Keys) != 2 || r.Keys["pay"] != key || len(r.Attachments) != 1 {
					t.Errorf("%s: report %d: keys %v, attachments %v", name, i, r.Keys, r.Attachments)
				}
			}
		})
	}
}

// echo answers each datagram with itself.
func echo(t *testing.T, ns *netns.NS, addr string) {
	t.Helper()
	var c net.PacketConn
	if err := ns.Do(func() (err error) { c, err = net.ListenPacket("udp", addr); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:n], from)
		}
	}()
}

// counted is a stream of numbered datagrams that come back.
type counted struct {
	c net.Conn
}

func newCounted(t *testing.T, ns *netns.NS, to string) counted {
	t.Helper()
	var c net.Conn
	if err := ns.Do(func() (err error) { c, err = net.Dial("udp", to); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return counted{c}
}

// until waits until one comes back, gone until one does not.
func (s counted) until(t *testing.T) { t.Helper(); s.await(t, true) }
func (s counted) gone(t *testing.T)  { t.Helper(); s.await(t, false) }

func (s counted) await(t *testing.T, back bool) {
	t.Helper()
	buf := make([]byte, 16)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		_, _ = s.c.Write(make([]byte, 4))
		_ = s.c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := s.c.Read(buf); (err == nil && n == 4) == back {
			return
		}
	}
	t.Fatalf("that a datagram comes back stays %v", !back)
}

// run sends one every 10 ms until it is stopped, and waits a while for those that are on their way.
func (s counted) run(stop <-chan struct{}) (sent, lost int) {
	var mu sync.Mutex
	back := map[uint32]bool{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 16)
		for {
			n, err := s.c.Read(buf)
			if err, ok := err.(net.Error); ok && err.Timeout() {
				return
			}
			if err != nil { // refused: that one is lost
				continue
			}
			if n == 4 {
				mu.Lock()
				back[binary.BigEndian.Uint32(buf)] = true
				mu.Unlock()
			}
		}
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for on := true; on; {
		sent++
		_, _ = s.c.Write(binary.BigEndian.AppendUint32(nil, uint32(sent)))
		select {
		case <-stop:
			on = false
		case <-tick.C:
		}
	}
	all := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(back) == sent
	}
	for end := time.Now().Add(3 * time.Second); !all() && time.Now().Before(end); {
		<-tick.C
	}
	_ = s.c.SetReadDeadline(time.Now())
	<-done
	mu.Lock()
	defer mu.Unlock()
	return sent, sent - len(back)
}
