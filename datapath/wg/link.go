package wg

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"

	"seaway.dev/seaway/datapath/tun"
	"seaway.dev/seaway/slice/plan"
)

// link is a TUN link in another network namespace. WireGuard's own device asks for its MTU and name by calls that
// only work in the link's namespace, and watches it by a netlink socket; here both are known without.
type link struct {
	*tun.Device
	name   string
	mtu    atomic.Int64
	events chan wgtun.Event

	mu     sync.Mutex
	closed bool // and events too
}

func newLink(want plan.Device) (wgtun.Device, nsID, error) {
	ns, id, err := namespace(want.NetNS)
	if err != nil {
		return nil, nsID{}, err
	}
	defer ns.Close()
	fd, err := openTUN(ns, want.Link)
	if err != nil {
		return nil, nsID{}, err
	}
	t, err := tun.New(fd)
	if err != nil {
		unix.Close(fd)
		return nil, nsID{}, fmt.Errorf("link %s: %w", want.Link, err)
	}
	l := &link{Device: t, name: want.Link, events: make(chan wgtun.Event, 4)}
	l.mtu.Store(int64(want.MTU))
	return l, id, nil
}

func (l *link) dress(want plan.Device) (changes int, err error) {
	ns, _, err := namespace(want.NetNS)
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	if changes, err = dressLink(ns, want); err != nil {
		return changes, err
	}
	if l.mtu.Swap(int64(want.MTU)) != int64(want.MTU) {
		l.tell(wgtun.EventMTUUpdate)
	}
	return changes, nil
}

func (l *link) tell(e wgtun.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.events <- e // WireGuard reads it until closed
	}
}

// unpersist makes the link go when the device is closed.
func (l *link) unpersist() {
	raw, err := l.File().SyscallConn()
	if err != nil {
		return // closed already
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 0) })
}

// MTU implements [wgtun.Device].
func (l *link) MTU() (int, error) { return int(l.mtu.Load()), nil }

// Name implements [wgtun.Device].
func (l *link) Name() (string, error) { return l.name, nil }

// Events implements [wgtun.Device].
func (l *link) Events() <-chan wgtun.Event { return l.events }

// Close implements [wgtun.Device].
func (l *link) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.events)
	}
	l.mu.Unlock()
	err := l.Device.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

var _ wgtun.Device = (*link)(nil)
