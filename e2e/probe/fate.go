package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// fate watches a host that is about to go, and tells what became of everything that had to do with it. The fault is
// when its last answer came on a connection that asks all the time; all times are milliseconds after that:
//
//	active    that connection broke
//	idle      a TCP connection that only reads was woken
//	udp       a UDP socket that goes on asking heard an error
//	udp-idle  a UDP socket that only reads was woken
//	dial      the first new TCP connection to it was refused, rather than left waiting
//	wrong     when the last new connection to the service was begun that did not get an answer in time
//	good      how long the service gave no answer to anybody
//
// "never" means not within the time given. With -show it prints one of these from the file of an earlier run, a
// large number for never.
//
//	probe fate -file F [-for 6s] HOST SERVICE
//	probe fate -file F -show idle
func fate(args []string) error {
	fs := flag.NewFlagSet("fate", flag.ContinueOnError)
	file := fs.String("file", "", "where to note it")
	span := fs.Duration("for", 6*time.Second, "how long after the fault to wait for what has not come")
	show := fs.String("show", "", "print one result of an earlier run")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *show != "" {
		return showFate(*file, *show)
	}
	if fs.NArg() != 2 || *file == "" {
		return errors.New("fate: want -file, a host and a service's address")
	}
	w := &watchman{host: withPort(fs.Arg(0)), service: withPort(fs.Arg(1)), span: *span, came: map[string]time.Time{}}
	if err := w.run(); err != nil {
		return err
	}
	text := w.text()
	fmt.Print(text)
	return os.WriteFile(*file, []byte(text), 0o644)
}

const never = 99999

func showFate(file, name string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			if f[1] == "never" {
				f[1] = fmt.Sprint(never)
			}
			fmt.Println(f[1])
			return nil
		}
	}
	return fmt.Errorf("%s says nothing of %q:\n%s", file, name, b)
}

const (
	fateBeat = 20 * time.Millisecond
	// inTime is how long a new connection to the service may take: well over any round trip of a story.
	inTime = 300 * time.Millisecond
)

type watchman struct {
	host, service string
	span          time.Duration

	mu    sync.Mutex
	last  time.Time            // the host's last answer
	came  map[string]time.Time // what happened when
	asked []asked              // of the service
}

type asked struct {
	begin, end time.Time
	good       bool
}

func (w *watchman) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.came[what]; !ok {
		w.came[what] = time.Now()
	}
}

func (w *watchman) run() error {
	active, err := w.open("tcp")
	if err != nil {
		return err
	}
	defer active.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	var opened []net.Conn
	for name, network := range map[string]string{"idle": "tcp", "udp-idle": "udp", "udp": "udp"} {
		c, err := w.open(network)
		if err != nil {
			return err
		}
		opened = append(opened, c)
		wg.Go(func() {
			if name == "udp" {
				w.askOn(ctx, c, name)
				return
			}
			if _, err := c.Read(make([]byte, 64)); err != nil && ctx.Err() == nil {
				w.note(name)
			}
		})
	}
	wg.Go(func() { w.dials(ctx, &wg) })
	wg.Go(func() { w.services(ctx, &wg) })
	w.last = time.Now()
	fmt.Println("watching", w.host)
	beating := make(chan struct{})
	go func() {
		defer close(beating)
		w.beat(ctx, active)
	}()
	for !w.done() {
		time.Sleep(fateBeat)
	}
	cancel()
	for _, c := range append(opened, active) {
		c.Close()
	}
	<-beating
	wg.Wait()
	return nil
}

// open opens a connection to the host and hears its first answer.
func (w *watchman) open(network string) (net.Conn, error) {
	c, err := net.DialTimeout(network, w.host, patience)
	if err != nil {
		return nil, err
	}
	if _, err := question(c, bufio.NewReader(c), patience); err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Time{})
}

// beat asks all the time on one connection.
func (w *watchman) beat(ctx context.Context, c net.Conn) {
	in := bufio.NewReader(c)
	for {
		if _, err := question(c, in, time.Hour); err != nil {
			if ctx.Err() == nil {
				w.note("active")
			}
			return
		}
		w.mu.Lock()
		w.last = time.Now()
		w.mu.Unlock()
		time.Sleep(fateBeat)
	}
}

// askOn goes on sending on a socket that keeps its port, whatever is answered.
func (w *watchman) askOn(ctx context.Context, c net.Conn, name string) {
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		_, err := c.Write([]byte("who\n"))
		if err == nil {
			c.SetReadDeadline(time.Now().Add(fateBeat))
			_, err = c.Read(buf)
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
			w.note(name)
			return
		}
	}
}

// dials begins a connection to the host every beat and notes the first that is refused.
func (w *watchman) dials(ctx context.Context, wg *sync.WaitGroup) {
	for ctx.Err() == nil {
		wg.Go(func() {
			begin := time.Now()
			c, err := net.DialTimeout("tcp", w.host, inTime)
			if err == nil {
				c.Close()
				return
			}
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() || ctx.Err() != nil || time.Since(begin) > inTime/2 {
				return
			}
			w.note("dial")
		})
		time.Sleep(fateBeat)
	}
}

// services asks the service every beat, over a connection of its own each time.
func (w *watchman) services(ctx context.Context, wg *sync.WaitGroup) {
	for ctx.Err() == nil {
		wg.Go(func() {
			a := asked{begin: time.Now()}
			if c, err := net.DialTimeout("tcp", w.service, inTime); err == nil {
				_, err = question(c, bufio.NewReader(c), inTime)
				a.good = err == nil
				c.Close()
			}
			a.end = time.Now()
			w.mu.Lock()
			w.asked = append(w.asked, a)
			w.mu.Unlock()
		})
		time.Sleep(fateBeat)
	}
}

// done tells whether there is nothing more to wait for: everything came, a second ago, or the time is over.
func (w *watchman) done() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	quiet := time.Since(w.last)
	return quiet > w.span || quiet > 2*time.Second && len(w.came) == 5
}

func (w *watchman) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, name := range []string{"active", "idle", "udp", "udp-idle", "dial"} {
		if at, ok := w.came[name]; ok {
			fmt.Fprintf(&b, "%s %d\n", name, max(at.Sub(w.last).Milliseconds(), 0))
		} else {
			fmt.Fprintf(&b, "%s never\n", name)
		}
	}
	// A failure just before the fault is one of the fault: the answer was under way.
	wrong, good, before := time.Duration(0), time.Duration(0), w.last
	from := w.last.Add(-inTime)
	for _, a := range w.asked {
		if !a.good && a.begin.After(from) {
			wrong = max(wrong, a.begin.Sub(w.last))
		}
		if a.good && a.end.After(w.last) {
			good = max(good, a.end.Sub(before))
			before = a.end
		}
	}
	if before.Equal(w.last) {
		fmt.Fprintf(&b, "wrong never\ngood never\n")
		return b.String()
	}
	fmt.Fprintf(&b, "wrong %d\ngood %d\n", wrong.Milliseconds(), good.Milliseconds())
	return b.String()
}
