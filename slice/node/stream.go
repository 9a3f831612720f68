package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"seaway.dev/seaway/fleet"
)

// Waits between attempts to reach the controller: they double from the first to the last, each drawn from its upper
// half, so that the nodes of a cluster do not all come back at once.
const (
	firstWait = 200 * time.Millisecond
	lastWait  = 15 * time.Second
)

func backoff(attempt int) time.Duration {
	d := lastWait
	if attempt < 8 {
		d = min(firstWait<<attempt, lastWait)
	}
	return d/2 + rand.N(d/2)
}

// wait sleeps, or returns false at once when ctx ends.
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

// stream hears intents from the controller for as long as the agent lives.
func (a *agent) stream(ctx context.Context) error {
	for attempt := 0; ; attempt++ {
		heard, err := a.listen(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if heard {
			attempt = 0
		}
		a.lost()
		p := fleet.Problem{
			Reason: "ControllerUnreachable", Where: "node " + a.cfg.Node, Message: err.Error(),
			Next: "what was last known stands and traffic flows; look at the controller (Deployment seaway-controller)",
		}
		if errors.Is(err, errVersion) {
			p.Reason, p.Next = "VersionUnknown", "upgrade the agent (DaemonSet seaway-agent) to the controller's version"
		}
		a.setProblems("stream", time.Now(), []fleet.Problem{p})
		a.log.Warn("controller lost", "err", err, "attempt", attempt)
		if !wait(ctx, backoff(attempt)) {
			return nil
		}
	}
}

func (a *agent) setConnected(is bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connected = is
}

// lost notes that nobody says what is new.
func (a *agent) lost() {
	a.mu.Lock()
	was := a.current
	a.connected, a.current = false, false
	a.mu.Unlock()
	if was {
		a.tellNames()
	}
}

// listen holds one connection; heard tells whether an intent came over it.
func (a *agent) listen(ctx context.Context) (heard bool, err error) {
	client, err := a.client()
	if err != nil {
		return false, err
	}
	defer client.CloseIdleConnections()
	// A controller that is cut off sends no end: its heartbeats stop.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(a.cfg.Timing.Silence, func() {
		cancel(fmt.Errorf("the controller was silent for %s", a.cfg.Timing.Silence))
	})
	defer silence.Stop()
	resp, err := a.send(ctx, client, http.MethodGet, "/v1/intent?changes=1&node="+url.QueryEscape(a.cfg.Node), nil)
	if err != nil {
		return false, cause(ctx, err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReaderSize(resp.Body, 4<<10)
	var told *fleet.Intent // on this connection
	for {
		line, err := readLine(lines, maxIntent)
		if err != nil {
			return heard, cause(ctx, fmt.Errorf("hear from the controller: %w", err))
		}
		silence.Reset(a.cfg.Timing.Silence)
		a.setConnected(true)
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		in, err := readIntent(line, a.cfg.Node, told)
		if err != nil {
			return heard, err
		}
		heard, told = true, in
		a.setProblems("stream", time.Now(), nil)
		a.accept(in)
	}
}

func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

// readLine reads up to a line's end; a longer line than limit is an error.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > limit {
			return nil, fmt.Errorf("a line of over %d bytes", limit)
		}
		if err == nil {
			return line, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

// client makes an HTTP client for one connection, with the certificates as they are now.
func (a *agent) client() (*http.Client, error) {
	if a.cfg.Transport != nil {
		return &http.Client{Transport: a.cfg.Transport}, nil
	}
	pem, err := os.ReadFile(a.cfg.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read the controller's certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", a.cfg.CAFile)
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13},
		// The Service may still lead to a controller that is gone: what does not answer soon is asked anew, and the
		// next connection goes elsewhere.
		DialContext:           nameless((&net.Dialer{Timeout: 2 * time.Second}).DialContext, a.cfg.ControllerAddr),
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: 20 * time.Second, // an idle stream begins with a heartbeat after 15 s
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConns:          1,
		ReadBufferSize:        4 << 10,
		WriteBufferSize:       4 << 10,
	}}, nil
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// nameless dials a name, and while that is not answered the address that it is known to have. Whoever answers there has to
// show the name's certificate all the same.
func nameless(dial dialFunc, known netip.Addr) dialFunc {
	if !known.IsValid() {
		return dial
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		var lookup *net.DNSError
		if err == nil || !errors.As(err, &lookup) {
			return c, err
		}
		_, port, bad := net.SplitHostPort(address)
		if bad != nil {
			return nil, err
		}
		c, second := dial(ctx, network, net.JoinHostPort(known.String(), port))
		if second != nil {
			return nil, fmt.Errorf("%w; and at its address: %w", err, second)
		}
		return c, nil
	}
}

// send makes a request with the agent's token and wants an answer of 2xx.
func (a *agent) send(ctx context.Context, c *http.Client, method, path string, body io.Reader) (*http.Response, error) {
	return a.request(ctx, c, method, path, body, nil)
}

// request makes a request with the agent's token and headers, and wants an answer of 2xx, or of 101 if it asks for
// that.
func (a *agent) request(ctx context.Context, c *http.Client, method, path string, body io.Reader, headers map[string]string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(a.cfg.Controller, "/")+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask the controller: %w", err)
	}
	if a.cfg.TokenFile != "" {
		token, err := os.ReadFile(a.cfg.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read the agent's token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+string(bytes.TrimSpace(token)))
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the controller: %w", err)
	}
	if resp.StatusCode/100 != 2 && resp.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		_ = resp.Body.Close()
		return nil, fmt.Errorf("the controller refuses: %s: %s", resp.Status, bytes.TrimSpace(text))
	}
	return resp, nil
}

// progressPace is the shortest time between two reports that say nothing but how far the node has come: in a fleet where
// something changes all the time, each node would else report with each change.
const progressPace = 250 * time.Millisecond

// lookLimit bounds how long the first report waits for the first round, which may hang on a runtime.
const lookLimit = 10 * time.Second

// firstLook waits for the first round. A report is all that others know of the node. One of an agent that has not looked
// yet would say that it has neither keys nor pods, and everybody would let go of it.
func (a *agent) firstLook(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-a.looked:
	case <-time.After(lookLimit):
	}
}

// reporter sends a report soon after each change and now and then besides.
func (a *agent) reporter(ctx context.Context) error {
	regular := time.NewTicker(a.cfg.Timing.Report)
	defer regular.Stop()
	client, attempt := (*http.Client)(nil), 0
	var last time.Time
	a.firstLook(ctx)
	for {
		changed := false
		select {
		case <-ctx.Done():
			return nil
		case <-regular.C:
		case <-a.dirty:
			changed = true
		case <-a.came:
			progress := time.NewTimer(max(a.cfg.Timing.Debounce, time.Until(last.Add(progressPace))))
			select {
			case <-ctx.Done():
			case <-a.dirty:
				changed = true
			case <-progress.C:
			}
			progress.Stop()
		}
		if changed {
			// Changes come in flocks: one report for all of them.
			if !wait(ctx, a.cfg.Timing.Debounce) {
				return nil
			}
			select {
			case <-a.dirty:
			default:
			}
		}
		select { // it says this as well
		case <-a.came:
		default:
		}
		last = time.Now()
		var err error
		if client == nil {
			client, err = a.client()
		}
		if err == nil {
			err = a.report(ctx, client)
		}
		if err == nil {
			attempt = 0
			continue
		}
		a.log.Debug("report not delivered", "err", err)
		if client != nil {
			client.CloseIdleConnections()
		}
		client = nil // the certificates may have changed
		poke(a.dirty)
		if !wait(ctx, backoff(attempt)) {
			return nil
		}
		attempt++
	}
}

func (a *agent) report(ctx context.Context, c *http.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	b, err := json.Marshal(a.state())
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	resp, err := a.send(ctx, c, http.MethodPost, "/v1/report?node="+url.QueryEscape(a.cfg.Node), bytes.NewReader(b))
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10))
	return resp.Body.Close()
}
