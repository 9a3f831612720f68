// Package dns answers the names of a zone on a node, by UDP and TCP: an authoritative server for clusterset.local and
// its alias, which the cluster's own DNS forwards to. It refuses all other names.
//
// A query is answered by the goroutine that read it, from the current [zone.Zone], by copying bytes: nothing is
// allocated, nothing is locked, and no query can make another one wait for more than its own copying. There are as
// many readers as processors, so that a flood fills the socket's buffer and nothing else. DNS's own limits hold:
// responses by UDP are at most 1232 bytes (512 without EDNS), longer ones are cut at a record and marked, so that the
// client asks again by TCP.
package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"seaway.dev/seaway/discovery/zone"
	"seaway.dev/seaway/fleet"
)

// DefaultPort is where agents answer, UDP and TCP. 53 is often taken on a node, and 5353 is multicast DNS's.
const DefaultPort = 5453

// Limits on TCP: connections at a time over all addresses (more are closed at once), and how long one may be idle.
// RFC 7766 §6.2.3 asks for seconds.
const (
	maxConns = 512
	idle     = 10 * time.Second
)

// readBuffer is how much of a burst waits in the kernel, bytes (the kernel caps it by net.core.rmem_max): a few thousand
// queries, some tens of milliseconds of work.
const readBuffer = 4 << 20

// Config is what a server depends on.
type Config struct {
	// Addrs are where to answer, each both by UDP and TCP. They must be addresses of the node: an unspecified address
	// would let the kernel choose what responses come from, and forwarders drop those that come from elsewhere.
	Addrs   []netip.AddrPort
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil for none
}

// State holds the newest zone. Its zero value is ready to use and knows nothing yet: every name of ours gets SERVFAIL.
type State struct {
	zone atomic.Pointer[zone.Zone]
	mu   sync.Mutex
}

// OnIntent makes the names of an intent the ones to answer. Queries go on meanwhile.
func (s *State) OnIntent(in fleet.Intent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone.Store(zone.Build(in.Services, s.zone.Load()))
}

// Zone returns the newest zone, nil before the first.
func (s *State) Zone() *zone.Zone { return s.zone.Load() }

// Serve answers on all addresses until the context ends; it returns when everything has stopped. current is asked for
// each query and must be quick and safe for concurrent use, as [State.Zone] is.
func Serve(ctx context.Context, cfg Config, current func() *zone.Zone) error {
	if len(cfg.Addrs) == 0 {
		return errors.New("serve DNS: no address to listen on")
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return err
	}
	s := &server{log: cfg.Log, current: current, metrics: m, conns: make(chan struct{}, maxConns)}
	var udp []*net.UDPConn
	var tcp []*net.TCPListener
	closeAll := func() {
		for _, c := range udp {
			c.Close()
		}
		for _, l := range tcp {
			l.Close()
		}
	}
	for _, a := range cfg.Addrs {
		if err := s.listen(ctx, a, &udp, &tcp); err != nil {
			closeAll()
			return err
		}
	}
	var wg sync.WaitGroup
	for _, c := range udp {
		for range runtime.GOMAXPROCS(0) {
			wg.Go(func() { s.serveUDP(c) })
		}
	}
	for _, l := range tcp {
		wg.Go(func() { s.serveTCP(ctx, l) })
	}
	cfg.Log.Info("answering DNS", "addrs", cfg.Addrs)
	<-ctx.Done()
	closeAll()
	wg.Wait()
	return nil
}

type server struct {
	log     *slog.Logger
	current func() *zone.Zone
	metrics *metrics
	conns   chan struct{}
}

// listen opens the sockets of one address.
func (s *server) listen(ctx context.Context, a netip.AddrPort, udp *[]*net.UDPConn, tcp *[]*net.TCPListener) error {
	if !a.IsValid() || a.Addr().IsUnspecified() {
		return fmt.Errorf("serve DNS on %s: name the node's addresses, so that responses come from where the question went", a)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", a.String())
	if err != nil {
		return explain(a, err)
	}
	*tcp = append(*tcp, l.(*net.TCPListener))
	// With port 0 (tests) UDP takes the port that TCP got.
	c, err := lc.ListenPacket(ctx, "udp", netip.AddrPortFrom(a.Addr(), uint16(l.Addr().(*net.TCPAddr).Port)).String())
	if err != nil {
		return explain(a, err)
	}
	u := c.(*net.UDPConn)
	if err := u.SetReadBuffer(readBuffer); err != nil {
		s.log.Warn("enlarge the DNS socket's buffer: bursts may be lost and asked again", "addr", a, "err", err)
	}
	*udp = append(*udp, u)
	return nil
}

func explain(a netip.AddrPort, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("serve DNS on %s: another process has the port (`ss -lunpt` shows which): %w", a, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("serve DNS on %s: the node has no such address: %w", a, err)
	}
	return fmt.Errorf("serve DNS on %s: %w", a, err)
}

// serveUDP answers until the socket is closed.
func (s *server) serveUDP(c *net.UDPConn) {
	query := make([]byte, 4096) // a longer query is cut and so malformed
	response := make([]byte, 0, largestUDP)
	for {
		n, from, err := c.ReadFromUDPAddrPort(query)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error of an earlier response
		}
		out, what := respond(response[:0], query[:n], s.current(), true)
		s.metrics.count(protoUDP, out != nil, what)
		if out == nil {
			continue
		}
		if _, err := c.WriteToUDPAddrPort(out, from); err != nil && !errors.Is(err, net.ErrClosed) {
			s.metrics.failed.Inc() // the client is gone or the buffer full: it asks again
		}
	}
}

// serveTCP accepts until the listener is closed, and returns when the last connection has ended.
func (s *server) serveTCP(ctx context.Context, l *net.TCPListener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			s.log.Warn("accept a DNS connection", "err", err) // out of file descriptors: others' closing helps
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case s.conns <- struct{}{}:
		default:
			s.metrics.refused.Inc()
			c.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-s.conns }()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			defer c.Close()
			s.serveConn(c)
		})
	}
}

// serveConn answers the queries of one connection in order (RFC 7766 lets a client send the next before the answer).
func (s *server) serveConn(c net.Conn) {
	var length [2]byte
	query, response := make([]byte, 0, 512), make([]byte, 0, 2048)
	for {
		if c.SetDeadline(time.Now().Add(idle)) != nil {
			return
		}
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(length[:]))
		if n > cap(query) {
			query = make([]byte, 0, n)
		}
		if _, err := io.ReadFull(c, query[:n]); err != nil {
			return
		}
		out, what := respond(append(response[:0], 0, 0), query[:n], s.current(), false)
		s.metrics.count(protoTCP, out != nil, what)
		if out == nil {
			return // garbage: whoever sends it is no DNS client
		}
		binary.BigEndian.PutUint16(out, uint16(len(out)-2))
		if _, err := c.Write(out); err != nil {
			if !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
				s.metrics.failed.Inc()
			}
			return
		}
		response = out
	}
}
