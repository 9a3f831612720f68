// Package dns answers the names of a zone on a node, by UDP and TCP: an authoritative server for clusterset.local and
// its alias, which the cluster's own DNS forwards to. It refuses all other names.
//
// Messages, and the server for TCP, are those of github.com/miekg/dns. A query is answered from the current [zone.Zone],
// whose records are shared by all answers: nothing is locked. By UDP, responses to questions that were asked before are
// sent again as they were packed, until there is another zone; and only so many are in hand at a time, so that a flood
// fills the socket's buffer and nothing else. Responses by UDP are at most 1232 bytes (512 without
// EDNS); longer ones are cut at a record and marked, so that the client asks again by TCP.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"seaway.dev/seaway/discovery/zone"
	"seaway.dev/seaway/fleet"
)

// DefaultPort is where agents answer, UDP and TCP. 53 is often taken on a node, and 5353 is multicast DNS's.
const DefaultPort = 5453

// headerLen is how long the shortest DNS message is, bytes.
const headerLen = 12

// Limits: connections at a time over all addresses (more are closed at once), how long one may be idle (RFC 7766 §6.2.3
// asks for seconds), and how long it may take no response.
const (
	maxConns = 512
	idle     = 10 * time.Second
	patience = 2 * time.Second
)

// Pauses between attempts to listen where something is in the way: the first, which doubles, and the longest.
const (
	retry    = time.Second
	maxRetry = 30 * time.Second
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
	// Failing, if not nil, is called when it changes on which addresses there is no answering, and why; nil: on all there
	// is. Meanwhile it is tried again and again.
	Failing func(error)
	Retry   time.Duration // first pause before it is tried again, which doubles up to 30 s; default 1 s
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
	z := zone.Build(in.Services, s.zone.Load()).Within(in.Prefixes)
	if in.Unsure {
		z = z.Doubt()
	}
	s.zone.Store(z)
}

// Zone returns the newest zone, nil before the first.
func (s *State) Zone() *zone.Zone { return s.zone.Load() }

// Serve answers on all addresses until the context ends; it returns when everything has stopped. current is asked for
// each query and must be quick and safe for concurrent use, as [State.Zone] is. Where an address is missing or its port
// taken, it says so to Failing and goes on trying; only a wrong configuration is an error.
func Serve(ctx context.Context, cfg Config, current func() *zone.Zone) error {
	if len(cfg.Addrs) == 0 {
		return errors.New("serve DNS: no address to listen on")
	}
	for _, a := range cfg.Addrs {
		if !a.IsValid() || a.Addr().IsUnspecified() {
			return fmt.Errorf("serve DNS on %s: name the node's addresses, so that responses come from where the question went", a)
		}
	}
	if cfg.Retry == 0 {
		cfg.Retry = retry
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return err
	}
	s := &server{cfg: cfg, current: current, metrics: m, slots: make(chan struct{}, maxConns), failing: make([]error, len(cfg.Addrs))}
	var wg sync.WaitGroup
	for i := range cfg.Addrs {
		wg.Go(func() { s.keep(ctx, i) })
	}
	wg.Wait()
	return nil
}

type server struct {
	cfg     Config
	current func() *zone.Zone
	metrics *metrics
	slots   chan struct{} // of connections

	mu      sync.Mutex
	failing []error // by address
}

// keep answers on one address until ctx ends, whatever comes between.
func (s *server) keep(ctx context.Context, i int) {
	a, pause := s.cfg.Addrs[i], s.cfg.Retry
	for {
		err := s.serve(ctx, a, func() {
			pause = s.cfg.Retry
			s.cfg.Log.Info("answering DNS", "addr", a)
			s.fail(i, nil)
		})
		if ctx.Err() != nil {
			return
		}
		err = explain(a, err)
		s.cfg.Log.Warn("DNS is not answered", "err", err, "again", pause.String())
		s.fail(i, err)
		if !wait(ctx, pause) {
			return
		}
		pause = min(2*pause, maxRetry)
	}
}

// fail notes that an address cannot be answered on, or can again.
func (s *server) fail(i int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := errors.Join(s.failing...)
	s.failing[i] = err
	now := errors.Join(s.failing...)
	if s.cfg.Failing != nil && fmt.Sprint(old) != fmt.Sprint(now) {
		s.cfg.Failing(now)
	}
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

// serve answers on one address until ctx ends or a socket fails. The port is not shared (SO_REUSEPORT) even among
// sockets of our own: what another process has would not be seen as taken.
func (s *server) serve(ctx context.Context, a netip.AddrPort, up func()) error {
	var lc net.ListenConfig
	c, err := lc.ListenPacket(ctx, "udp", a.String())
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := lc.Listen(ctx, "tcp", a.String())
	if err != nil {
		return err
	}
	defer l.Close()
	if err := c.(*net.UDPConn).SetReadBuffer(readBuffer); err != nil {
		s.cfg.Log.Warn("enlarge the DNS socket's buffer: bursts may be lost and asked again", "addr", a, "err", err)
	}
	up()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.serveUDP(ctx, c.(*net.UDPConn)) })
	g.Go(func() error {
		tcp := s.tcp(&listener{Listener: l, ctx: ctx, log: s.cfg.Log, slots: s.slots, refused: s.metrics.refused})
		return run(ctx, tcp)
	})
	return g.Wait()
}

// run runs a server of the library until ctx ends or it fails, and answers what it has in hand.
func run(ctx context.Context, srv *dns.Server) error {
	started := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	ended := make(chan error, 1)
	go func() { ended <- srv.ActivateAndServe() }()
	select {
	case err := <-ended: // before it began
		return err
	case <-started:
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		_ = srv.Shutdown() // an error says that it had ended already
		<-ended
		return nil
	}
}

// tcp makes the server of a TCP listener. A connection's queries are answered one by one (RFC 7766 lets a client send
// the next before the answer).
func (s *server) tcp(l net.Listener) *dns.Server {
	srv := &dns.Server{Listener: l, ReadTimeout: idle, IdleTimeout: func() time.Duration { return idle }, MaxTCPQueries: -1}
	srv.DecorateReader = func(r dns.Reader) dns.Reader { return &tcpReader{r, s.metrics.dropped[protoTCP]} }
	s.handle(srv, protoTCP)
	return srv
}

// handle gives a server what to do with messages.
func (s *server) handle(srv *dns.Server, proto int) {
	srv.MsgAcceptFunc = func(h dns.Header) dns.MsgAcceptAction {
		action := accept(h)
		switch action {
		case dns.MsgAccept:
			return action
		case dns.MsgIgnore:
			s.metrics.dropped[proto].Inc()
		case dns.MsgReject:
			s.metrics.response(proto, dns.RcodeFormatError)
		case dns.MsgRejectNotImplemented:
			s.metrics.response(proto, dns.RcodeNotImplemented)
		}
		return action
	}
	srv.MsgInvalidFunc = func(m []byte, _ error) {
		if len(m) < headerLen {
			s.metrics.dropped[proto].Inc()
		} else {
			s.metrics.response(proto, dns.RcodeFormatError)
		}
	}
	srv.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := respond(q, s.current(), proto == protoUDP)
		s.metrics.response(proto, r.Rcode)
		if r.Truncated {
			s.metrics.truncated.Inc()
		}
		if err := w.WriteMsg(r); err != nil && !gone(err) {
			s.metrics.failed.Inc() // the client is gone or the buffer full: it asks again
		}
	})
}
