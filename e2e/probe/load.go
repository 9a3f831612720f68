package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Load asks each of its targets again and again, open loop, and notes what came of each question. A target is
// NAME=KIND:ADDRESS, and the kinds are
//
//	stream   one TCP connection; it is opened anew only when it has broken, never because it is slow, unless -give-up
//	         says for how long nothing may be acknowledged
//	session  the same, but every 3 s, when all is answered, it is closed and opened anew: so some always are with each of
//	         a service's pods
//	big      the same with questions of 4,000 bytes, which do not fit into one packet, a fifth as often
//	dial     a TCP connection for each question, half as often
//	udp      one datagram for each question
//
// A line of the log is `NAME OUTCOME BEGIN END WHO`, times in microseconds of Unix time, WHO the pod that answered. The
// outcomes are ok, reset, refused, unreachable, timeout, closed and error.
func load(args []string) error {
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	file := fs.String("log", "", "where to note it")
	every := fs.Duration("every", 10*time.Millisecond, "between two questions")
	giveUp := fs.Duration("give-up", 0, "a stream on which nothing is acknowledged for so long is broken; 0: as the kernel says")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() == 0 || *file == "" {
		return errors.New("load: want -log and targets NAME=KIND:ADDRESS")
	}
	f, err := os.OpenFile(*file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	j := &journal{}
	var wg sync.WaitGroup
	for _, a := range fs.Args() {
		t, err := parseTarget(a, *every, j)
		if err != nil {
			return err
		}
		t.giveUp = *giveUp
		wg.Go(func() { t.run(ctx) })
	}
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		if _, err := f.Write(j.take()); err != nil {
			return err
		}
	}
	wg.Wait()
	_, err = f.Write(j.take())
	return err
}

// journal collects lines between two writes.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) note(name, outcome string, begin time.Time, who string) {
	if who == "" {
		who = "-"
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	fmt.Fprintf(&j.buf, "%s %s %d %d %s\n", name, outcome, begin.UnixMicro(), time.Now().UnixMicro(), who)
}

func (j *journal) take() []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := bytes.Clone(j.buf.Bytes())
	j.buf.Reset()
	return b
}

type loadTarget struct {
	name, kind, addr string
	every, giveUp    time.Duration
	*journal
}

func parseTarget(s string, every time.Duration, j *journal) (loadTarget, error) {
	name, rest, ok := strings.Cut(s, "=")
	kind, addr, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 || name == "" || addr == "" {
		return loadTarget{}, fmt.Errorf("%q: want NAME=KIND:ADDRESS", s)
	}
	switch kind {
	case "stream", "session", "udp":
	case "dial":
		every *= 2 // each is three packets and more
	case "big":
		every *= 5 // as much as the others together otherwise
	default:
		return loadTarget{}, fmt.Errorf("%q: want stream, big, dial or udp", s)
	}
	return loadTarget{name: name, kind: kind, addr: withPort(addr), every: every, journal: j}, nil
}

const (
	dialing     = time.Second
	sessionLife = 3 * time.Second
)

func (t loadTarget) run(ctx context.Context) {
	for ctx.Err() == nil {
		switch t.kind {
		case "dial":
			t.dials(ctx)
		case "udp":
			t.datagrams(ctx)
		default:
			t.stream(ctx)
		}
		t.rest(ctx)
	}
}

func (t loadTarget) rest(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(t.every):
	}
}

// outcome names an error as a client would tell it.
func outcome(err error) string {
	var timeout net.Error
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
		return "reset"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return "unreachable"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, net.ErrClosed), strings.Contains(err.Error(), "EOF"):
		return "closed"
	}
	return "error"
}

// who is the pod of an answer: c2/web-1.
func who(line string) string {
	var cluster, pod string
	for _, f := range strings.Fields(line) {
		if v, ok := strings.CutPrefix(f, "cluster="); ok {
			cluster = v
		}
		if v, ok := strings.CutPrefix(f, "pod="); ok {
			pod = v
		}
	}
	return cluster + "/" + pod
}

// connect opens a stream.
func (t loadTarget) connect() (net.Conn, error) {
	d := net.Dialer{Timeout: dialing}
	if t.giveUp > 0 {
		d.Control = func(_, _ string, raw syscall.RawConn) error {
			var err error
			cerr := raw.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(t.giveUp.Milliseconds()))
			})
			return errors.Join(cerr, err)
		}
	}
	return d.Dial("tcp", t.addr)
}

const tcpUserTimeout = 18 // TCP_USER_TIMEOUT of linux/tcp.h, in milliseconds

// stream asks on one connection until that breaks.
func (t loadTarget) stream(ctx context.Context) {
	begin := time.Now()
	c, err := t.connect()
	if err != nil {
		t.note(t.name, outcome(err), begin, "")
		return
	}
	defer c.Close()
	question := []byte("who\n")
	if t.kind == "big" {
		question = append(bytes.Repeat([]byte{'w'}, 3999), '\n')
	}
	asked := make(chan time.Time, 1<<16)
	broken := make(chan error, 2)
	go func() {
		in := bufio.NewReader(c)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				broken <- err
				return
			}
			t.note(t.name, "ok", <-asked, who(line))
		}
	}()
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-broken:
			t.note(t.name, outcome(err), time.Now(), "")
			return
		case <-tick.C:
		}
		if t.kind == "session" && time.Since(begin) > sessionLife {
			if len(asked) == 0 {
				return
			}
			continue // what is asked is to be answered first
		}
		// A connection that takes no more is slow, not broken: its reader will hear if it breaks.
		if len(asked) == cap(asked) {
			continue
		}
		asked <- time.Now()
		c.SetWriteDeadline(time.Now().Add(time.Hour))
		if _, err := c.Write(question); err != nil {
			t.note(t.name, outcome(err), time.Now(), "")
			return
		}
	}
}

// dials asks on a connection of its own each time; at most a hundred wait at once.
func (t loadTarget) dials(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	free := make(chan struct{}, 100)
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case free <- struct{}{}:
		default:
			continue
		}
		wg.Go(func() {
			defer func() { <-free }()
			begin := time.Now()
			line, err := t.ask()
			t.note(t.name, outcome(err), begin, who(line))
		})
	}
}

func (t loadTarget) ask() (string, error) {
	c, err := net.DialTimeout("tcp", t.addr, dialing)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return question(c, bufio.NewReader(c), dialing)
}

// datagrams asks by UDP. A question without an answer after a second has timed out.
func (t loadTarget) datagrams(ctx context.Context) {
	c, err := net.Dial("udp", t.addr)
	if err != nil {
		t.note(t.name, outcome(err), time.Now(), "")
		return
	}
	defer c.Close()
	p := &pending{waiting: map[string]time.Time{}}
	go t.answers(c, p)
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		id := fmt.Sprintf("#%d", n)
		p.add(id)
		for _, begin := range p.late() {
			t.note(t.name, "timeout", begin, "")
		}
		if _, err := c.Write([]byte(id)); err != nil {
			if begin, ok := p.remove(id); ok {
				t.note(t.name, outcome(err), begin, "")
			}
		}
	}
}

func (t loadTarget) answers(c net.Conn, p *pending) {
	buf := make([]byte, 2048)
	for {
		n, err := c.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // an ICMP message, of one of those that wait
			t.note(t.name, outcome(err), time.Now(), "")
			continue
		}
		id, rest, _ := strings.Cut(string(buf[:n]), " ")
		if begin, ok := p.remove(id); ok {
			t.note(t.name, "ok", begin, who(rest))
		}
	}
}

// pending are questions without an answer, oldest first.
type pending struct {
	mu      sync.Mutex
	waiting map[string]time.Time
	order   []string
}

func (p *pending) add(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting[id] = time.Now()
	p.order = append(p.order, id)
}

func (p *pending) remove(id string) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	begin, ok := p.waiting[id]
	delete(p.waiting, id)
	return begin, ok
}

// late takes out what has waited too long.
func (p *pending) late() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []time.Time
	for len(p.order) > 0 {
		begin, ok := p.waiting[p.order[0]]
		if ok && time.Since(begin) < dialing {
			break
		}
		if ok {
			out = append(out, begin)
			delete(p.waiting, p.order[0])
		}
		p.order = p.order[1:]
	}
	return out
}
