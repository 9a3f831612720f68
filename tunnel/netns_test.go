package tunnel

import (
	"testing"
	"time"

	"seaway.dev/seaway/datapath/netnstest"
	"seaway.dev/seaway/slice/plan"
)

// TestTwoNodes: two tunnel processes on two machines carry a slice between them; the second PUT changes nothing.
func TestTwoNodes(t *testing.T) {
	netnstest.NeedRoot(t)
	ha, hb := netnstest.New(t, "swtun-a"), netnstest.New(t, "swtun-b")
	netnstest.Veth(ha, "eth0", hb, "eth0")
	ha.IP("addr add 10.88.0.1/24 dev eth0")
	hb.IP("addr add 10.88.0.2/24 dev eth0")
	a, b := newNode(t, "c1/a", ha, "10.88.0.1"), newNode(t, "c2/b", hb, "10.88.0.2")
	ka, kb := a.slice("pay", "10.77.1.1/32"), b.slice("pay", "10.77.2.1/32")
	a.peer("pay", plan.Peer{ID: b.id, Key: kb, Allowed: prefix("10.77.2.0/24"), Paths: []plan.Path{direct(b)}})
	b.peer("pay", plan.Peer{ID: a.id, Key: ka, Allowed: prefix("10.77.1.0/24"), Paths: []plan.Path{direct(a)}})
	a.put()
	b.put()
	took := eventually(t, 5*time.Second, func() error { return a.ping("pay", "10.77.2.1") })
	t.Logf("first ping after %v; path %s", took, a.path("pay", b.id))
	if r := a.put(); r.Changes != 0 {
		t.Errorf("the same value again changed %d things", r.Changes)
	}
}
