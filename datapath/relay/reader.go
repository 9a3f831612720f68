package relay

import (
	"errors"
	"net"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
)

// wire is one family's way to the network: [udp], or the tests' router.
type wire interface {
	// read waits for packets, which stay valid until the next read; one caller at a time. It fails with errWoken
	// after wake and with net.ErrClosed after close.
	read() ([]train, error)
	// write sends packets to one endpoint. Without wait it drops what the socket has no room for.
	write(pkts [][]byte, to *Endpoint, wait bool) error
	wake()
	close() error
}

var errWoken = errors.New("woken")

// reader lets several WireGuard devices read one socket without a goroutine in between: the role of the reader follows
// the traffic. Whoever holds it reads a batch straight for itself, forwards at once what is to be relayed, and when it
// meets a packet for another device it hands that device the role together with the rest of the batch. A node with
// one busy slice thus reads as a bare WireGuard device does.
//
//	holder: read ─▶ classify ─▶ relay what is not for here ─▶ mine? return it : hand over role and rest
type reader struct {
	sw *Switch

	mu     sync.Mutex
	wire   wire
	holder *turn
	busy   bool // the holder is inside receive
	idle   turn // holds the role when no device does

	// The holder's only:
	items []item // of the batch, those for devices here
	at    int
	outs  []out
	sends []sending // the prober's
}

// item is a packet for a device here.
type item struct {
	turn *turn
	pkt  []byte
	from *Endpoint
}

// out is what is to be sent on: all packets to each endpoint.
type out struct {
	to   []*Endpoint
	pkts [][]byte
}

// turn is a device's claim on one reader.
type turn struct {
	wake   chan struct{}
	closed bool // under the reader's mu
}

func newTurn() *turn { return &turn{wake: make(chan struct{}, 1)} }

func newReader(sw *Switch) *reader {
	r := &reader{sw: sw, idle: *newTurn()}
	r.holder = &r.idle
	return r
}

// receive gives t the packets that are for it, as a [conn.ReceiveFunc] does. It blocks until there are some.
func (r *reader) receive(t *turn, bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	for {
		w := r.await(t)
		if w == nil {
			return 0, net.ErrClosed
		}
		if n, done := r.take(t, bufs, sizes, eps); done {
			if n > 0 {
				return n, nil
			}
			continue
		}
		trains, err := w.read()
		if err == nil {
			r.sw.classify(r, trains)
			continue
		}
		r.sw.readFailed(r, w, err)
		r.leave()
	}
}

// await blocks until t is the holder and returns what to read from, or nil if t was closed.
func (r *reader) await(t *turn) wire {
	for {
		r.mu.Lock()
		switch {
		case t.closed:
			if r.holder == t {
				r.busy = false
				r.pass(&r.idle)
			}
			r.mu.Unlock()
			return nil
		case r.holder == t && r.wire != nil:
			r.busy = true
			w := r.wire
			r.mu.Unlock()
			return w
		}
		r.mu.Unlock()
		<-t.wake
	}
}

// leave marks that the holder is not inside receive any more.
func (r *reader) leave() {
	r.mu.Lock()
	r.busy = false
	r.mu.Unlock()
}

// take copies what there is for t. done is false if the batch is used up and nothing was for t.
func (r *reader) take(t *turn, bufs [][]byte, sizes []int, eps []conn.Endpoint) (n int, done bool) {
	for ; r.at < len(r.items); r.at++ {
		it := &r.items[r.at]
		if it.turn == t {
			if n == len(bufs) {
				break
			}
			sizes[n] = copy(bufs[n], it.pkt)
			eps[n] = it.from
			n++
			continue
		}
		if r.hand(it.turn) {
			return n, true
		}
	}
	if n > 0 {
		r.leave()
	}
	return n, n > 0
}

// hand gives the role away, unless the other is closed.
func (r *reader) hand(t *turn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.closed {
		return false
	}
	r.busy = false
	r.pass(t)
	return true
}

// pass makes t the holder. The caller holds mu.
func (r *reader) pass(t *turn) {
	r.holder = t
	t.signal()
}

func (t *turn) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// quit ends t's claim: its receive returns net.ErrClosed.
func (r *reader) quit(t *turn) {
	r.mu.Lock()
	t.closed = true
	w := wire(nil)
	if r.holder == t {
		if r.busy {
			w = r.wire // maybe waiting for the network; it passes the role on itself
		} else {
			r.pass(&r.idle)
		}
	}
	r.mu.Unlock()
	t.signal()
	if w != nil {
		w.wake()
	}
}

// attach gives the reader something to read from, in place of what it had.
func (r *reader) attach(w wire) (old wire) {
	r.mu.Lock()
	old, r.wire = r.wire, w
	h := r.holder
	r.mu.Unlock()
	h.signal()
	return old
}
