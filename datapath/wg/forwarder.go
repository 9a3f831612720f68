package wg

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"seaway.dev/seaway/datapath/relay"
)

// forwarder stands between a WireGuard device that has a UDP socket of its own, the kernel's, and the switch. For
// each place in the network that the device talks to it holds one loopback socket, so that to WireGuard each place has
// an endpoint of its own and its authenticated roaming between them works as if the packets came from outside.
//
//	switch ──▶ mouth of 192.0.2.1:51871 (127.0.0.1:40001) ──▶ device (127.0.0.1:39000)
//	       ◀── mouth of "auto"          (127.0.0.1:40002) ◀──
type forwarder struct {
	port   *relay.Port
	device netip.AddrPort // the device's socket
	auto   *mouth         // to send initiations by: the switch knows where to

	mu     sync.Mutex
	mouths map[string]*mouth // by place: address, and by whose relay
	closed bool
	wg     sync.WaitGroup
}

// mouth is the loopback socket that stands for one place.
type mouth struct {
	conn *net.UDPConn
	to   atomic.Pointer[relay.Endpoint]
	used atomic.Int64 // unix seconds
}

const (
	maxMouths  = 4096            // places at once; then the longest unused one is given up
	mouthsIdle = 5 * time.Minute // unused for so long, a place is forgotten; WireGuard's sessions end after 3 minutes
)

func newForwarder(port *relay.Port, device netip.AddrPort) (*forwarder, error) {
	f := &forwarder{port: port, device: device, mouths: map[string]*mouth{}}
	auto, err := port.ParseEndpoint(relay.Auto)
	if err != nil {
		return nil, err
	}
	if f.auto, err = f.open(auto.(*relay.Endpoint)); err != nil {
		return nil, err
	}
	fns, _, err := port.Open(0)
	if err != nil {
		f.auto.conn.Close()
		return nil, fmt.Errorf("open the switch's port: %w", err)
	}
	for _, fn := range fns {
		f.wg.Go(func() { f.inward(fn) })
	}
	return f, nil
}

// open makes a mouth and starts reading from it. The caller holds mu, or nobody else knows f yet.
func (f *forwarder) open(to *relay.Endpoint) (*mouth, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(f.device))
	if err != nil {
		return nil, fmt.Errorf("loopback socket to the device: %w", err)
	}
	m := &mouth{conn: c}
	m.to.Store(to)
	m.used.Store(time.Now().Unix())
	f.wg.Go(func() { f.outward(m) })
	return m, nil
}

// outward carries what the device sends to one place.
func (f *forwarder) outward(m *mouth) {
	buf := make([]byte, 1<<16)
	for {
		n, err := m.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the device's socket was closed for a moment: ICMP says so here
		}
		m.used.Store(time.Now().Unix())
		_ = f.port.Send([][]byte{buf[:n]}, m.to.Load()) // counted by the switch
	}
}

// inward carries what comes from the network.
func (f *forwarder) inward(receive conn.ReceiveFunc) {
	n := f.port.BatchSize()
	bufs, sizes, eps := make([][]byte, n), make([]int, n), make([]conn.Endpoint, n)
	for i := range bufs {
		bufs[i] = make([]byte, 1<<16)
	}
	for {
		count, err := receive(bufs, sizes, eps)
		if err != nil {
			return // closed
		}
		for i := range count {
			if m := f.mouth(eps[i].(*relay.Endpoint)); m != nil {
				_, _ = m.conn.Write(bufs[i][:sizes[i]]) // as lossy as the network that it came from
			}
		}
	}
}

// mouth finds or makes the mouth of a place.
func (f *forwarder) mouth(from *relay.Endpoint) *mouth {
	key := from.DstToString()
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.mouths[key]
	if m == nil {
		if f.closed {
			return nil
		}
		if len(f.mouths) >= maxMouths {
			f.forgetOldest()
		}
		var err error
		if m, err = f.open(from); err != nil {
			return nil
		}
		f.mouths[key] = m
	}
	m.to.Store(from)
	m.used.Store(time.Now().Unix())
	return m
}

func (f *forwarder) forgetOldest() {
	var oldest string
	for k, m := range f.mouths {
		if o := f.mouths[oldest]; o == nil || m.used.Load() < o.used.Load() {
			oldest = k
		}
	}
	if m := f.mouths[oldest]; m != nil {
		m.conn.Close()
		delete(f.mouths, oldest)
	}
}

// forget closes the mouths that were not used for long. WireGuard's peers there are to be sent to auto again.
func (f *forwarder) forget(now time.Time) (gone []netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, m := range f.mouths {
		if now.Unix()-m.used.Load() > int64(mouthsIdle/time.Second) {
			gone = append(gone, m.local())
			m.conn.Close()
			delete(f.mouths, k)
		}
	}
	return gone
}

func (m *mouth) local() netip.AddrPort { return m.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

func (f *forwarder) close() {
	f.port.Close() // never fails
	f.mu.Lock()
	f.closed = true
	f.auto.conn.Close()
	for _, m := range f.mouths {
		m.conn.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
}
