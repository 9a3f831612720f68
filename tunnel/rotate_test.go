package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"seaway.dev/seaway/datapath/netnstest"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// count sends numbered packets from one slice address to another until it is stopped, and counts those that arrive.
type count struct {
	mu    sync.Mutex
	sent  uint64
	heard map[uint64]bool
	stop  func()
	close func()
}

func startCount(t *testing.T, from, to *netnstest.NS, addr string, every time.Duration) *count {
	t.Helper()
	c := &count{heard: map[uint64]bool{}}
	var l net.PacketConn
	if err := to.Do(func() (err error) { l, err = net.ListenPacket("udp", net.JoinHostPort(addr, "7100")); return err }); err != nil {
		t.Fatal(err)
	}
	_ = l.(*net.UDPConn).SetReadBuffer(8 << 20)
	var s net.Conn
	if err := from.Do(func() (err error) { s, err = net.Dial("udp", net.JoinHostPort(addr, "7100")); return err }); err != nil {
		t.Fatal(err)
	}
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		buf := make([]byte, 2048)
		for {
			n, _, err := l.ReadFrom(buf)
			if err != nil {
				return
			}
			if n >= 8 {
				c.mu.Lock()
				c.heard[binary.BigEndian.Uint64(buf)] = true
				c.mu.Unlock()
			}
		}
	}()
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		buf := make([]byte, 600)
		for {
			select {
			case <-end:
				return
			case <-tick.C:
			}
			c.mu.Lock()
			binary.BigEndian.PutUint64(buf, c.sent)
			if _, err := s.Write(buf); err == nil {
				c.sent++
			}
			c.mu.Unlock()
		}
	}()
	c.stop = sync.OnceFunc(func() { close(end); <-done })
	c.close = func() { c.stop(); s.Close(); l.Close() }
	t.Cleanup(c.close)
	return c
}

// lost stops sending and counts what does not arrive any more.
func (c *count) lost(t *testing.T) (lost, sent uint64) {
	c.stop()
	last, still := -1, 0
	eventually(t, 10*time.Second, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.heard) == last {
			still++
		} else {
			last, still = len(c.heard), 0
		}
		if uint64(last) < c.sent && still < 20 {
			return errors.New("packets are still coming")
		}
		return nil
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent - uint64(len(c.heard)), c.sent
}

// generation gives nodes that are peers on a slice, each with one address, a device of one more generation of keys.
func generation(t *testing.T, slice string, g uint64, addrs map[*node]string, paths func(from, to *node) []plan.Path) {
	t.Helper()
	name := fleet.KeyName(slice, g)
	keys := map[*node]fleet.Key{}
	for n := range addrs {
		k, err := n.client.EnsureKey(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		keys[n] = k
	}
	for n := range addrs {
		var base plan.Device
		for _, d := range n.want.Devices {
			if d.Slice == slice {
				base = d
			}
		}
		base.Generation, base.Peers = g, nil
		for o, addr := range addrs {
			if o != n {
				base.Peers = append(base.Peers, plan.Peer{ID: o.id, Key: keys[o], Allowed: prefix(addr), Paths: paths(n, o)})
			}
		}
		n.want.Devices = append(n.want.Devices, base)
	}
}

// retire takes a device of an older generation away.
func (n *node) retire(slice string, g uint64) {
	var left []plan.Device
	for _, d := range n.want.Devices {
		if d.Slice != slice || d.Generation != g {
			left = append(left, d)
		}
	}
	n.want.Devices = left
}

// settled waits until each node has shaken hands with all others on a slice's devices of one generation.
func settled(t *testing.T, slice string, g uint64, nodes ...*node) time.Duration {
	t.Helper()
	return eventually(t, 20*time.Second, func() error {
		for _, n := range nodes {
			st, err := n.client.Status(t.Context())
			if err != nil {
				return err
			}
			for _, d := range st.Devices {
				for _, p := range d.Peers {
					if d.Slice == slice && d.Generation == g && p.Handshake.IsZero() {
						return fmt.Errorf("%s: no session with %s on %s", n.id, p.Peer, fleet.KeyName(slice, g))
					}
				}
			}
		}
		return nil
	})
}

// rested waits until nothing has gone by a slice's devices of one generation for half a second.
func rested(t *testing.T, slice string, g uint64, nodes ...*node) {
	t.Helper()
	var last string
	since := time.Now()
	eventually(t, 30*time.Second, func() error {
		now := ""
		for _, n := range nodes {
			st, err := n.client.Status(t.Context())
			if err != nil {
				return err
			}
			for _, d := range st.Devices {
				for _, p := range d.Peers {
					if d.Slice == slice && d.Generation == g {
						now += fmt.Sprintf("%s %d %d ", n.id, p.RxBytes, p.TxBytes)
					}
				}
			}
		}
		if now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < 500*time.Millisecond {
			return fmt.Errorf("generation %d is still used: %s", g, now)
		}
		return nil
	})
}

// TestKeysChange: the keys of a slice are changed three times under load, once with the two nodes told one after the
// other, and not one packet is lost either way, nor does a connection break. The control changes them as one would
// without thinking, and loses some.
func TestKeysChange(t *testing.T) {
	r := newInternet(t)
	a, b := r.machine("c1/a"), r.machine("c2/b")
	a.slice("pay", "10.77.1.1/32")
	b.slice("pay", "10.77.2.1/32")
	addrs := map[*node]string{a: "10.77.1.1/32", b: "10.77.2.1/32"}
	paths := func(_, to *node) []plan.Path { return []plan.Path{direct(to)} }
	generation(t, "pay", 1, addrs, paths)
	for n := range addrs {
		n.retire("pay", 0)
		n.put()
	}
	for _, n := range []*node{a, b} {
		n.slices["pay"].IP("route replace 10.77.0.0/16 dev " + plan.TunLink)
	}
	eventually(t, 5*time.Second, func() error { return a.ping("pay", "10.77.2.1") })
	there := startCount(t, a.slices["pay"], b.slices["pay"], "10.77.2.1", 4*time.Millisecond)
	back := startCount(t, b.slices["pay"], a.slices["pay"], "10.77.1.1", 4*time.Millisecond)
	s := startStream(t, a.slices["pay"], b.slices["pay"], "10.77.2.1")
	s.moves(t, 5*time.Second)
	for g := uint64(2); g <= 4; g++ {
		generation(t, "pay", g, addrs, paths)
		a.put()
		if g == 3 { // the other hears of it later
			s.moves(t, 5*time.Second)
		}
		b.put()
		took := settled(t, "pay", g, a, b)
		s.moves(t, 5*time.Second)
		if again := a.put(); again.Changes != 0 {
			t.Errorf("the same value again changed %d things", again.Changes)
		}
		rested(t, "pay", g-1, a, b)
		for n := range addrs {
			n.retire("pay", g-1)
			n.put()
			if err := n.client.RemoveKey(t.Context(), fleet.KeyName("pay", g-1)); err != nil {
				t.Error(err)
			}
		}
		s.moves(t, 5*time.Second)
		t.Logf("generation %d: sessions after %v", g, took)
	}
	for way, c := range map[string]*count{"there": there, "back": back} {
		lost, sent := c.lost(t)
		c.close()
		t.Logf("%s: %d of %d packets lost over three changes", way, lost, sent)
		if lost > 0 {
			t.Errorf("%s: %d of %d packets were lost", way, lost, sent)
		}
	}

	control := startCount(t, a.slices["pay"], b.slices["pay"], "10.77.2.1", 4*time.Millisecond)
	s.moves(t, 5*time.Second)
	generation(t, "pay", 5, addrs, paths)
	for n := range addrs {
		n.retire("pay", 4)
		n.put()
	}
	s.moves(t, 30*time.Second)
	if lost, sent := control.lost(t); lost == 0 {
		t.Errorf("control: keys swapped at once lost nothing of %d packets: the test cannot fail", sent)
	} else {
		t.Logf("control: keys swapped at once: %d of %d packets lost", lost, sent)
	}
}
