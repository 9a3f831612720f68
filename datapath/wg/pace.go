package wg

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"

	"seaway.dev/seaway/datapath/relay"
)

// pace keeps a WireGuard device from taking in much more than it has given out. By itself it reads as fast as it can,
// the workers behind fall back, and thousands of packets lie between its queues; a tenth of the time then goes into the
// first touch of each, probably because no cache has room for so many. What waits in the kernel's queue costs nothing, and
// the sender sees it.
//
// The count is a guess: a packet that WireGuard drops is never given out. So nobody waits for longer than stuck, after
// which the count begins anew: a device that gives out nothing still takes in limit packets in each such time.
type pace struct {
	limit int64
	ahead atomic.Int64  // packets taken in and not given out yet
	room  chan struct{} // holds a token once ahead came down to limit
}

const (
	inFlight = 128              // packets per processor
	stuck    = time.Millisecond // without progress, to give the count up
)

func newPace() *pace {
	return &pace{limit: int64(inFlight * max(2, runtime.GOMAXPROCS(0))), room: make(chan struct{}, 1)}
}

// wait returns when there is room, or after stuck. The timer is the caller's, and stopped or expired.
func (p *pace) wait(timer *time.Timer) {
	for p.ahead.Load() > p.limit {
		timer.Reset(stuck)
		select {
		case <-p.room: // maybe of long ago
			timer.Stop()
		case <-timer.C:
			p.ahead.Store(0)
		}
	}
}

// took notes packets that were taken in.
func (p *pace) took(n int) { p.ahead.Add(int64(n)) }

// gave notes packets that were given out.
func (p *pace) gave(n int) {
	for {
		before := p.ahead.Load()
		now := max(0, before-int64(n)) // below 0 if WireGuard sends something of its own
		if !p.ahead.CompareAndSwap(before, now) {
			continue
		}
		if before > p.limit && now <= p.limit {
			select {
			case p.room <- struct{}{}:
			default:
			}
		}
		return
	}
}

// paced is the two ends of a device, the link and the network, with a pace for each direction.
func paced(s *seat, p *relay.Port) (*pacedSeat, *pacedPort) {
	out, in := newPace(), newPace()
	return &pacedSeat{seat: s, out: out, in: in, timer: stopped()}, &pacedPort{Port: p, out: out, in: in}
}

func stopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

type pacedSeat struct {
	*seat
	out, in *pace
	timer   *time.Timer // the reader's
}

// Read implements [wgtun.Device].
func (s *pacedSeat) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	s.out.wait(s.timer)
	n, err := s.seat.Read(bufs, sizes, offset)
	s.out.took(atLeast(1, sizes[:n]))
	return n, err
}

// Write implements [wgtun.Device].
func (s *pacedSeat) Write(bufs [][]byte, offset int) (int, error) {
	defer s.in.gave(len(bufs))
	return s.seat.Write(bufs, offset)
}

type pacedPort struct {
	*relay.Port
	out, in *pace
}

// Open implements [conn.Bind].
func (p *pacedPort) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	fns, port, err := p.Port.Open(port)
	for i, receive := range fns {
		timer := stopped()
		fns[i] = func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
			p.in.wait(timer)
			n, err := receive(bufs, sizes, eps)
			p.in.took(atLeast(device.MessageKeepaliveSize+1, sizes[:n]))
			return n, err
		}
	}
	return fns, port, err
}

// Send implements [conn.Bind].
func (p *pacedPort) Send(bufs [][]byte, ep conn.Endpoint) error {
	if len(bufs) > 0 && len(bufs[0]) > device.MessageKeepaliveSize && bufs[0][0] == device.MessageTransportType {
		defer p.out.gave(len(bufs))
	}
	return p.Port.Send(bufs, ep)
}

// atLeast counts the packets of some size: smaller ones are no data, or not for this device.
func atLeast(size int, sizes []int) (n int) {
	for _, s := range sizes {
		if s >= size {
			n++
		}
	}
	return n
}
