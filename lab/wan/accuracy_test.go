package wan

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/lab/netns"
)

var accuracy = flag.Bool("accuracy", false, "measure every quality at length and print a table")

// bench is two hosts with a router between them that is wired like the lab's.
type bench struct{ router, a, b string }

func newBench(t *testing.T) bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root, for network namespaces; run: sudo go test ./wan")
	}
	if _, err := exec.LookPath("iptables-legacy-restore"); err != nil {
		t.Skip("SKIPPED: iptables is not installed; run: seaway-lab setup")
	}
	p := fmt.Sprintf("wantest%d-", os.Getpid())
	n := bench{p + "r", p + "a", p + "b"}
	for _, ns := range []string{n.router, n.a, n.b} {
		if err := netns.Create(ns); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = netns.Delete(ns) })
	}
	script := fmt.Sprintf(`set -e
ip link set lo up; sysctl -qw net.ipv4.ip_forward=1
ip link add br-c1 type veth peer name eth0 netns %[1]s; ip link add br-c2 type veth peer name eth0 netns %[2]s
ip addr add 10.0.1.1/24 dev br-c1; ip addr add 10.0.2.1/24 dev br-c2; ip link set br-c1 up; ip link set br-c2 up
ip -n %[1]s link set lo up; ip -n %[1]s addr add 10.0.1.2/24 dev eth0; ip -n %[1]s link set eth0 up; ip -n %[1]s route add default via 10.0.1.1
ip -n %[2]s link set lo up; ip -n %[2]s addr add 10.0.2.2/24 dev eth0; ip -n %[2]s link set eth0 up; ip -n %[2]s route add default via 10.0.2.1`, n.a, n.b)
	err := netns.Do(n.router, func() error {
		out, err := exec.Command("sh", "-c", script).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// with runs fn while a quality holds in both directions.
func (n bench) with(t *testing.T, q Quality, fn func()) {
	t.Helper()
	var tab Table
	if err := tab.Update([]Pair{{"c1", "c2"}, {"c2", "c1"}}, func(p *Path) { p.Quality = q }); err != nil {
		t.Fatal(err)
	}
	w := worker{log: slog.New(slog.NewTextHandler(io.Discard, nil)), queues: map[int]*queue{}}
	if err := netns.Do(n.router, func() error { return w.apply(tab.Queues()) }); err != nil {
		t.Fatal(err)
	}
	if err := tab.install(n.router, plan(t)); err != nil {
		t.Fatal(err)
	}
	fn()
	if err := errors.Join((Table{}).install(n.router, plan(t)), w.apply(nil)); err != nil {
		t.Fatal(err)
	}
}

// echo answers datagrams in b's namespace until the test ends.
func (n bench) echo(t *testing.T) {
	t.Helper()
	var c net.PacketConn
	err := netns.Do(n.b, func() (err error) {
		c, err = net.ListenPacket("udp", "10.0.2.2:7")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		b := make([]byte, 2048)
		for {
			k, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:k], from)
		}
	}()
}

// pings sends numbered datagrams at an interval and returns the round-trip time
// of each answer, and how many answers were overtaken by a later one.
func (n bench) pings(t *testing.T, count int, every time.Duration) (rtts []time.Duration, overtaken int) {
	t.Helper()
	var c net.Conn
	err := netns.Do(n.a, func() (err error) {
		c, err = net.Dial("udp", "10.0.2.2:7")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	sent := make([]time.Time, count)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for i := range count {
			<-tick.C
			sent[i] = time.Now()
			_, _ = c.Write(be.AppendUint32(nil, uint32(i)))
		}
		// The last ones get a second to come back.
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
	}()
	b := make([]byte, 64)
	highest := -1
	for len(rtts) < count {
		k, err := c.Read(b)
		if err != nil || k < 4 {
			break
		}
		i := int(be.Uint32(b))
		rtts = append(rtts, time.Since(sent[i]))
		if i < highest {
			overtaken++
		}
		highest = max(highest, i)
	}
	<-done
	_ = c.Close()
	return rtts, overtaken
}

func mean(d []time.Duration) time.Duration {
	var sum time.Duration
	for _, x := range d {
		sum += x
	}
	return sum / time.Duration(max(1, len(d)))
}

// quantile of round-trip times: robust against a host that is busy now and then.
func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[int(q*float64(len(s)-1))]
}

// flood sends datagrams faster than a rate and measures what arrives, in bits
// per second on the wire.
func (n bench) flood(t *testing.T, rate float64, duration time.Duration) float64 {
	t.Helper()
	var l net.PacketConn
	var c net.Conn
	err := netns.Do(n.b, func() (err error) { l, err = net.ListenPacket("udp", "10.0.2.2:0"); return err })
	if err == nil {
		err = netns.Do(n.a, func() (err error) { c, err = net.Dial("udp", l.LocalAddr().String()); return err })
	}
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	defer c.Close()
	const wire = 1514 // 1472 bytes of data
	go func() {
		b, start := make([]byte, 1472), time.Now()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for sent := 0.0; time.Since(start) < duration; {
			for <-tick.C; sent < 1.3*rate*time.Since(start).Seconds(); sent += wire * 8 {
				_, _ = c.Write(b)
			}
		}
	}()
	b := make([]byte, 2048)
	// The buffer fills first; after that the line is always busy.
	skip := time.Now().Add(500 * time.Millisecond)
	_ = l.SetReadDeadline(time.Now().Add(duration))
	got, first, last := 0.0, time.Time{}, time.Time{}
	for {
		k, _, err := l.ReadFrom(b)
		if err != nil {
			return got / max(last.Sub(first).Seconds(), 1e-9)
		}
		if last = time.Now(); last.Before(skip) {
			continue
		}
		if first.IsZero() {
			first = last
			continue
		}
		got += float64(k+42) * 8
	}
}

// bulk measures one TCP connection from a to b in bits per second.
func (n bench) bulk(t *testing.T, duration time.Duration) float64 {
	t.Helper()
	var l net.Listener
	var c net.Conn
	if err := netns.Do(n.b, func() (err error) { l, err = net.Listen("tcp", "10.0.2.2:0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := netns.Do(n.a, func() (err error) { c, err = net.Dial("tcp", l.Addr().String()); return err }); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer c.Close()
		b := make([]byte, 1<<16)
		for end := time.Now().Add(duration); time.Now().Before(end); {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	start := time.Now()
	k, _ := io.Copy(io.Discard, s)
	return float64(k) * 8 / time.Since(start).Seconds()
}

func TestEmulator(t *testing.T) {
	n := newBench(t)
	n.echo(t)
	base, _ := n.pings(t, 50, 2*time.Millisecond)
	n.with(t, Quality{Delay: 10 * time.Millisecond}, func() {
		rtts, _ := n.pings(t, 50, 5*time.Millisecond)
		if m := slices.Min(rtts); m < 20*time.Millisecond || len(rtts) != 50 {
			t.Errorf("%d of 50 answers, the quickest after %s; want 20 ms", len(rtts), m)
		}
	})
	n.with(t, Quality{Delay: time.Second}, func() {
		// What is held when a queue ends must not be lost: with closes it.
	})
	after, _ := n.pings(t, 50, 2*time.Millisecond)
	if len(base) != 50 || len(after) != 50 || mean(after) > 5*time.Millisecond {
		t.Errorf("without rules: %d answers before and %d after, mean %s", len(base), len(after), mean(after))
	}
}

// TestAccuracy prints what README shows. At real-time priority, so that it
// measures the emulator and not what else the host does:
//
//	go test -c -o wan.test ./wan && sudo chrt -f 10 ./wan.test -test.run Accuracy -test.v -accuracy; rm wan.test
func TestAccuracy(t *testing.T) {
	if !*accuracy {
		t.Skip("SKIPPED: takes a minute; run: sudo go test ./wan -run Accuracy -accuracy -v")
	}
	n := newBench(t)
	n.echo(t)
	ms := time.Millisecond
	var rows []string
	row := func(format string, args ...any) { rows = append(rows, "| "+fmt.Sprintf(format, args...)+" |") }
	base, _ := n.pings(t, 500, 2*ms)
	row("nothing | RTT %s; TCP %.0f Mbit/s", us(quantile(base, 0.5)), n.bulk(t, 2*time.Second)/1e6)
	for _, q := range []Quality{{Delay: ms}, {Delay: 10 * ms}, {Delay: 50 * ms}, {Delay: 10 * ms, Jitter: 2 * ms}, {Delay: 40 * ms, Jitter: 10 * ms}} {
		n.with(t, q, func() {
			every := 5*ms + 2*q.Jitter
			rtts, _ := n.pings(t, 300, every)
			// Two even distributions, one after the other: 80 % lie within 2.21 jitters.
			row("delay %s ± %s each way | RTT %s (want %s), 80 %% within %s (want %s)", q.Delay, q.Jitter, us(quantile(rtts, 0.5)), us(2*q.Delay),
				us(quantile(rtts, 0.9)-quantile(rtts, 0.1)), us(time.Duration(2.21*float64(q.Jitter))))
		})
	}
	for _, loss := range []float64{0.01, 0.1} {
		n.with(t, Quality{Loss: loss}, func() {
			rtts, _ := n.pings(t, 5000, 500*time.Microsecond)
			row("loss %s each way | %.2f %% of round trips lost (want %.2f %%)", FormatShare(loss), 100-float64(len(rtts))/50, 100*(1-(1-loss)*(1-loss)))
		})
	}
	for _, rate := range []int64{1e6, 10e6, 100e6} {
		n.with(t, Quality{Rate: rate}, func() {
			row("rate %s | UDP flood %.2f Mbit/s", FormatRate(rate), n.flood(t, float64(rate), 3*time.Second)/1e6)
		})
	}
	for _, rate := range []int64{10e6, 100e6, 500e6} {
		n.with(t, Quality{Rate: rate}, func() {
			row("rate %s | TCP payload %.2f Mbit/s (at most %.2f)", FormatRate(rate), n.bulk(t, 4*time.Second)/1e6, float64(rate)/1e6*1448/1514)
		})
	}
	for _, reorder := range []float64{0.01, 0.1} {
		n.with(t, Quality{Delay: 10 * ms, Reorder: reorder}, func() {
			rtts, _ := n.pings(t, 5000, ms)
			quick := 0
			for _, r := range rtts {
				if r < 15*ms {
					quick++
				}
			}
			row("delay 10ms, reorder %s each way | %.2f %% of round trips overtook (want %.2f %%)", FormatShare(reorder), float64(quick)/50, 100*(1-(1-reorder)*(1-reorder)))
		})
	}
	n.with(t, Quality{Delay: 10 * ms}, func() { row("delay 10ms each way | TCP %.0f Mbit/s", n.bulk(t, 4*time.Second)/1e6) })
	t.Log("\n| set | measured |\n|---|---|\n" + strings.Join(rows, "\n"))
}

func us(d time.Duration) string { return fmt.Sprintf("%.2f ms", d.Seconds()*1000) }
