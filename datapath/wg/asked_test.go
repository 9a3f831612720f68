package wg

import (
	"errors"
	"testing"

	"seaway.dev/seaway/datapath/netnstest"
	"seaway.dev/seaway/slice/plan"
)

// TestAskedTooEarly: a handshake that is asked for before the device is there, as at each restart, is not forgotten:
// there is a session although nobody has sent anything.
func TestAskedTooEarly(t *testing.T) {
	netnstest.NeedRoot(t)
	create := func() Driver { return NewUserspace(quiet) }
	a, b := newMachine(t, create), newMachine(t, create)
	ka, kb := a.slice("pay", "10.77.1.1/32"), b.slice("pay", "10.77.2.1/32")
	b.peers("pay", plan.Peer{ID: "c1/a", Key: ka, Allowed: prefixes("10.77.1.1/32")})
	b.apply()
	a.drv.Handshake("pay", kb, false)
	a.peers("pay", plan.Peer{ID: "c2/b", Key: kb, Allowed: prefixes("10.77.2.1/32"), Paths: []plan.Path{b.path()}})
	a.apply()
	eventually(t, func() error {
		stats, err := a.drv.Peers("pay")
		if err != nil || !stats[kb].Handshake.IsZero() {
			return err
		}
		return errors.New("no session")
	})
}
