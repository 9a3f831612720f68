package dns

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// tcpReader ends connections over which garbage comes.
type tcpReader struct {
	dns.Reader
	dropped prometheus.Counter
}

// ReadTCP fails with what has not even a header: whoever sends it is no DNS client.
func (r *tcpReader) ReadTCP(c net.Conn, timeout time.Duration) ([]byte, error) {
	m, err := r.Reader.ReadTCP(c, timeout)
	if err == nil && len(m) < headerLen {
		r.dropped.Inc()
		return nil, dns.ErrShortRead
	}
	return m, err
}

// listener accepts connections as long as there are not too many.
type listener struct {
	net.Listener
	ctx     context.Context // ends with the server
	log     *slog.Logger
	slots   chan struct{} // of all listeners
	refused prometheus.Counter
}

// Accept returns the next connection for which there is a slot; others are closed at once.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			l.log.Warn("accept a DNS connection", "err", err) // others' closing helps
			if !wait(l.ctx, 100*time.Millisecond) {
				return nil, net.ErrClosed
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &conn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			l.refused.Inc()
			_ = c.Close()
		}
	}
}

// conn is a connection that gives its slot back, and that a client which does not read cannot hold up.
type conn struct {
	net.Conn
	release func()
}

// Write ends the connection if it fails: half a response may have gone.
func (c *conn) Write(b []byte) (int, error) {
	err := c.SetWriteDeadline(time.Now().Add(patience))
	if err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	if err != nil {
		_ = c.Close()
	}
	return n, err
}

// Close closes the connection and gives its slot back.
func (c *conn) Close() error {
	c.release()
	return c.Conn.Close()
}

// gone tells whether a client just went away, or never read.
func gone(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
}

// wait sleeps unless ctx ends, and tells which.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
