package wg

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	wgtun "golang.zx2c4.com/wireguard/tun"
)

// fork lets several WireGuard devices share one link, while a slice's keys are changed: each has a seat.
//
//	            ┌─ seat (old key) ─ device ─┐
//	link ─ fork ┤                           ├─ the node's port
//	            └─ seat (new key) ─ device ─┘
//
// What the devices receive, all write into the link. What comes out of the link is read by one of them at a time, the
// one that holds the turn; it passes to the others what the table says is theirs. With one seat, as nearly always,
// nothing is looked at or copied.
type fork struct {
	link  wgtun.Device
	turn  chan struct{} // holds a token while nobody reads
	table atomic.Pointer[table]
	dead  atomic.Bool // the link is gone

	mu    sync.Mutex
	seats []*seat // the oldest first
}

// table says whose a packet is by its destination; what is not in it is first's. It never changes.
type table struct {
	first *seat
	to    map[netip.Addr]*seat
	wide  []span
}

// span is a prefix of more than one address: none in the product, whose peers have their pods' addresses.
type span struct {
	prefix netip.Prefix
	seat   *seat
}

// seat is one device's end of a fork.
type seat struct {
	fork   *fork
	given  chan [][]byte // packets that others read and passed on
	gone   chan struct{}
	events chan wgtun.Event
	once   sync.Once
}

var _ wgtun.Device = (*seat)(nil)

func newFork(link wgtun.Device) *fork {
	f := &fork{link: link, turn: make(chan struct{}, 1)}
	f.turn <- struct{}{}
	go f.forward() // ends when the link is closed, with the last seat
	return f
}

// forward tells every device what happens to the link.
func (f *fork) forward() {
	for e := range f.link.Events() {
		f.mu.Lock()
		for _, s := range f.seats {
			select {
			case s.events <- e:
			default: // four are waiting already, and reading any of them shows the newest state
			}
		}
		f.mu.Unlock()
	}
}

// sit adds a device.
func (f *fork) sit() *seat {
	s := &seat{fork: f, given: make(chan [][]byte, 16), gone: make(chan struct{}), events: make(chan wgtun.Event, 4)}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seats = append(f.seats, s)
	if len(f.seats) == 2 {
		f.table.Store(&table{first: f.seats[0]}) // before the new one reads anything
	}
	return s
}

// share sets whose packets are whose.
func (f *fork) share(to map[netip.Addr]*seat, wide []span) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.seats) < 2 {
		f.table.Store(nil)
		return
	}
	f.table.Store(&table{first: f.seats[0], to: to, wide: wide})
}

// alone tells whether nobody else sits at the fork.
func (s *seat) alone() bool {
	s.fork.mu.Lock()
	defer s.fork.mu.Unlock()
	return len(s.fork.seats) == 1 && s.fork.seats[0] == s
}

// Read implements [wgtun.Device].
func (s *seat) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for {
		select {
		case <-s.gone:
			return 0, os.ErrClosed
		case batch := <-s.given:
			return s.take(batch, bufs, sizes, offset), nil
		case <-s.fork.turn:
		}
		select {
		case batch := <-s.given: // what was read before by others comes first; nobody adds to it now
			s.fork.turn <- struct{}{}
			return s.take(batch, bufs, sizes, offset), nil
		case <-s.gone:
			s.fork.turn <- struct{}{}
			return 0, os.ErrClosed
		default:
		}
		n, err := s.fork.read(s, bufs, sizes, offset)
		s.fork.turn <- struct{}{}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// take copies a batch that another one read.
func (s *seat) take(batch, bufs [][]byte, sizes []int, offset int) int {
	n := min(len(batch), len(bufs)) // all links read batches of one size
	for i := range n {
		sizes[i] = copy(bufs[i][offset:], batch[i])
	}
	return n
}

// read reads from the link for a seat, which holds the turn. A packet that is another's has size 0 afterwards, which
// WireGuard passes over.
func (f *fork) read(s *seat, bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := f.link.Read(bufs, sizes, offset)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		f.wakeAt(time.Time{})
		return 0, err
	}
	if errors.Is(err, os.ErrClosed) {
		f.dead.Store(true)
	}
	t := f.table.Load()
	select {
	case <-s.gone: // between two looks: what it read now is its successors'
		t = f.without(s)
	default:
	}
	if t == nil || n == 0 {
		return n, err
	}
	var others map[*seat][][]byte
	for i := range n {
		p := bufs[i][offset : offset+sizes[i]]
		whose := t.of(p)
		if whose == s {
			continue
		}
		if others == nil {
			others = map[*seat][][]byte{}
		}
		others[whose] = append(others[whose], append([]byte(nil), p...))
		sizes[i] = 0
	}
	for whose, batch := range others {
		select {
		case whose.given <- batch:
		case <-whose.gone:
		}
	}
	return n, err
}

// of tells whose a packet is.
func (t *table) of(p []byte) *seat {
	var dst netip.Addr
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		dst = netip.AddrFrom4([4]byte(p[16:20]))
	case len(p) >= 40 && p[0]>>4 == 6:
		dst = netip.AddrFrom16([16]byte(p[24:40]))
	}
	if s := t.to[dst]; s != nil {
		return s
	}
	for _, w := range t.wide {
		if w.prefix.Contains(dst) {
			return w.seat
		}
	}
	return t.first
}

// wakeAt ends a read that waits, at a time; the zero time is never. No packet is lost by it.
func (f *fork) wakeAt(at time.Time) {
	if file := f.link.File(); file != nil {
		_ = file.SetReadDeadline(at)
	}
}

// Write implements [wgtun.Device].
func (s *seat) Write(bufs [][]byte, offset int) (int, error) { return s.fork.link.Write(bufs, offset) }

// MTU implements [wgtun.Device].
func (s *seat) MTU() (int, error) { return s.fork.link.MTU() }

// Name implements [wgtun.Device].
func (s *seat) Name() (string, error) { return s.fork.link.Name() }

// File implements [wgtun.Device].
func (s *seat) File() *os.File { return s.fork.link.File() }

// BatchSize implements [wgtun.Device].
func (s *seat) BatchSize() int { return s.fork.link.BatchSize() }

// Events implements [wgtun.Device].
func (s *seat) Events() <-chan wgtun.Event { return s.events }

// Close leaves the fork; the last one closes the link.
func (s *seat) Close() (err error) {
	s.once.Do(func() {
		f := s.fork
		f.mu.Lock()
		for i, o := range f.seats {
			if o == s {
				f.seats = append(f.seats[:i:i], f.seats[i+1:]...)
			}
		}
		last := len(f.seats) == 0
		close(s.events)
		close(s.gone)
		if len(f.seats) > 1 {
			f.table.Store(f.table.Load().without(s, f.seats))
		} else {
			f.table.Store(nil)
		}
		f.mu.Unlock()
		if last {
			err = f.link.Close()
			return
		}
		f.wakeAt(time.Unix(1, 0)) // it may be this one that reads
	})
	return err
}

// without is the table for what a seat that has left still read; nil if nobody is left.
func (f *fork) without(s *seat) *table {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.seats) == 0 {
		return nil
	}
	return f.table.Load().without(s, f.seats)
}

// without is the table after a seat has left.
func (t *table) without(s *seat, left []*seat) *table {
	out := &table{first: left[0], to: map[netip.Addr]*seat{}}
	if t == nil {
		return out
	}
	for a, o := range t.to {
		if o != s {
			out.to[a] = o
		}
	}
	for _, w := range t.wide {
		if w.seat != s {
			out.wide = append(out.wide, w)
		}
	}
	return out
}
