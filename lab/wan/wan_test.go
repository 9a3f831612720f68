package wan

import (
	"bytes"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/lab/config"
	"seaway.dev/seaway/lab/layout"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func plan(t *testing.T) layout.Layout {
	t.Helper()
	c := config.Default(3, 2)
	if err := c.Complete(); err != nil {
		t.Fatal(err)
	}
	l, err := layout.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test ./wan -update rewrites it):\n%s", file, got)
	}
}

func newSchedule(q Quality) *schedule {
	return &schedule{quality: q, rand: rand.New(rand.NewPCG(1, 2))}
}

// feed sends n packets at an interval and returns the fate and due time of each.
func feed(s *schedule, n, size int, every time.Duration) (fates map[fate]int, due []time.Duration) {
	fates = map[fate]int{}
	for i := range n {
		now := time.Duration(i) * every
		before := len(s.queue)
		f := s.arrive(now, uint32(i), size)
		fates[f]++
		if len(s.queue) > before {
			due = append(due, s.queue[len(s.queue)-1].due)
		}
	}
	return fates, due
}

func TestDelay(t *testing.T) {
	_, due := feed(newSchedule(Quality{Delay: 10 * time.Millisecond}), 100, 100, time.Millisecond)
	for i, d := range due {
		if want := time.Duration(i)*time.Millisecond + 10*time.Millisecond; d != want {
			t.Fatalf("packet %d is due at %s, want %s", i, d, want)
		}
	}
}

func TestJitterStaysInBoundsAndInOrder(t *testing.T) {
	_, due := feed(newSchedule(Quality{Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond}), 2000, 100, 20*time.Millisecond)
	var sum, lo, hi time.Duration = 0, math.MaxInt64, 0
	for i, d := range due {
		late := d - time.Duration(i)*20*time.Millisecond
		sum, lo, hi = sum+late, min(lo, late), max(hi, late)
	}
	mean := sum / 2000
	if lo < 15*time.Millisecond || hi > 25*time.Millisecond || lo > 15200*time.Microsecond || hi < 24800*time.Microsecond ||
		(mean-20*time.Millisecond).Abs() > 300*time.Microsecond {
		t.Errorf("delays from %s to %s, mean %s", lo, hi, mean)
	}
	_, due = feed(newSchedule(Quality{Delay: 20 * time.Millisecond, Jitter: 20 * time.Millisecond}), 2000, 100, 10*time.Microsecond)
	if !slices.IsSorted(due) {
		t.Error("jitter has reordered packets")
	}
}

func TestLoss(t *testing.T) {
	for _, loss := range []float64{0.01, 0.3, 1} {
		f, _ := feed(newSchedule(Quality{Loss: loss}), 20000, 100, time.Microsecond)
		if got := float64(f[drop]) / 20000; math.Abs(got-loss) > 0.01 {
			t.Errorf("lost %v of the packets, want %v", got, loss)
		}
		if f[hold] != 0 {
			t.Error("held packets for no reason")
		}
	}
}

func TestRate(t *testing.T) {
	// 1000 packets of 1500 bytes in 1.2 s are 10 Mbit/s; the line takes half.
	s := newSchedule(Quality{Rate: 5e6})
	f, due := feed(s, 1000, 1500-frameOverhead, 1200*time.Microsecond)
	last := due[len(due)-1]
	got := float64(len(due)) * 1500 * 8 / last.Seconds()
	if math.Abs(got-5e6) > 1e5 || f[drop] == 0 {
		t.Errorf("passed %.0f bit/s and dropped %d", got, f[drop])
	}
	if wait := last - 1000*1200*time.Microsecond; wait > bufferTime+5*time.Millisecond {
		t.Errorf("the buffer has grown to %s", wait)
	}
}

func TestReorderOvertakes(t *testing.T) {
	s := newSchedule(Quality{Delay: 10 * time.Millisecond, Reorder: 0.25})
	f, _ := feed(s, 4000, 100, 100*time.Microsecond)
	if got := float64(f[pass]) / 4000; math.Abs(got-0.25) > 0.03 || f[drop] != 0 {
		t.Errorf("%v of the packets overtook, %d dropped", got, f[drop])
	}
}

func TestReleaseInOrder(t *testing.T) {
	s := newSchedule(Quality{Delay: 10 * time.Millisecond})
	feed(s, 10000, 100, time.Millisecond)
	for now := time.Duration(0); now < 11*time.Second; now += 500 * time.Millisecond {
		if last, any := s.release(now); any && time.Duration(last)*time.Millisecond+10*time.Millisecond > now {
			t.Fatalf("at %s packet %d was let go", now, last)
		}
	}
	if _, any := s.next(); any || s.stats.Held != 0 {
		t.Error("some are still held")
	}
}

func TestParse(t *testing.T) {
	for in, want := range map[string]float64{"1%": 0.01, "0.5%": 0.005, "0": 0, "100%": 1} {
		if got, err := ParseShare(in); err != nil || math.Abs(got-want) > 1e-9 {
			t.Errorf("%s: %v %v", in, got, err)
		}
	}
	for in, want := range map[string]int64{"100mbit": 1e8, "1.5Gbit": 15e8, "512kbit": 512000, "0": 0} {
		if got, err := ParseRate(in); err != nil || got != want {
			t.Errorf("%s: %v %v", in, got, err)
		}
	}
	for _, bad := range []string{"-1%", "101%", "x"} {
		if _, err := ParseShare(bad); err == nil {
			t.Errorf("%s is taken for a share", bad)
		}
	}
	for _, bad := range []string{"100", "mbit", "10mb"} {
		if _, err := ParseRate(bad); err == nil {
			t.Errorf("%s is taken for a rate", bad)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, q := range []Quality{{Jitter: 1}, {Reorder: 0.1}, {Delay: -1}, {Loss: 2}, {Rate: 5}} {
		if q.Check() == nil {
			t.Errorf("%+v is accepted", q)
		}
	}
}

func TestPairs(t *testing.T) {
	l := plan(t)
	ps, err := Pairs(l, "c1", "all", false)
	if err != nil || len(ps) != 6 || !slices.Contains(ps, Pair{"c3", "c1"}) {
		t.Errorf("%v %v", ps, err)
	}
	if ps, err = Pairs(l, "all", "all", false); err != nil || len(ps) != 12 {
		t.Errorf("%v %v", ps, err)
	}
	if ps, err = Pairs(l, "c1n1", "c2", true); err != nil || len(ps) != 1 {
		t.Errorf("%v %v", ps, err)
	}
	for _, c := range []struct{ a, b, want string }{{"c1", "c1n1", "machine cut"}, {"c3n1", "c1", "name the cluster (c3)"}, {"zz", "c1", "hub, c1, c2, c3"}} {
		if _, err := Pairs(l, c.a, c.b, false); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v", c.a, c.b, err)
		}
	}
}

func sampleTable(t *testing.T) Table {
	var tab Table
	set := func(from, to string, change func(*Path)) {
		if err := tab.Update([]Pair{{from, to}}, change); err != nil {
			t.Fatal(err)
		}
	}
	set("c1", "c2", func(p *Path) { p.Delay = time.Millisecond })
	set("c2", "c1", func(p *Path) { p.Loss = 0.1; p.Cut = true })
	set("c1n1", "c2n2", func(p *Path) { p.Rate = 1e6; p.Cut = true })
	return tab
}

func TestRules(t *testing.T) {
	l, tab := plan(t), sampleTable(t)
	golden(t, "testdata/rules.txt", tab.nftRules(l)+"\n# IPv4\n"+tab.queueRules(l, false)+"\n# IPv6\n"+tab.queueRules(l, true)+"\n# nothing set\n"+Table{}.nftRules(l)+Table{}.queueRules(l, false))
}

func TestUpdateKeepsQueueNumbers(t *testing.T) {
	tab := sampleTable(t)
	before := tab.Queues()
	if err := tab.Update([]Pair{{"c1", "c2"}}, func(p *Path) { p.Quality = Quality{} }); err != nil {
		t.Fatal(err)
	}
	for n, q := range tab.Queues() {
		if before[n] != q {
			t.Errorf("queue %d now holds another path", n)
		}
	}
	if len(tab.Queues()) != 2 || len(tab.Paths) != 2 {
		t.Errorf("%+v", tab)
	}
	if err := tab.Update([]Pair{{"c1", "c2"}}, func(p *Path) { p.Jitter = 1 }); err == nil || !strings.Contains(err.Error(), "c1 to c2") {
		t.Error(err)
	}
}

func TestPcap(t *testing.T) {
	var b bytes.Buffer
	w, err := newPcap(&b)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.packet(time.Unix(1, 2), []byte("abc"), 5); err != nil {
		t.Fatal(err)
	}
	want := "\x4d\x3c\xb2\xa1\x02\x00\x04\x00" + strings.Repeat("\x00", 8) + "\x00\x00\x04\x00\x01\x00\x00\x00" +
		"\x01\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\x05\x00\x00\x00abc"
	if b.String() != want {
		t.Errorf("%x", b.String())
	}
}

func TestPacketAttributes(t *testing.T) {
	m := append(attribute(attrPacketHeader, append(u32(77), 8, 0, 3)), attribute(attrPayload, []byte{1})...)
	if id, n := packet(append(m, attribute(attrCapLen, u32(1500))...)); id != 77 || n != 1500 {
		t.Error(id, n)
	}
	if id, n := packet(m); id != 77 || n != 1 {
		t.Error(id, n)
	}
	if id, _ := packet([]byte{255, 255, 1, 0}); id != 0 {
		t.Error("read past the end")
	}
}
