package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

type options struct {
	out, only, tests, profile string
	rounds                    int
	each                      time.Duration
}

// figures are the medians of one way. Zero means: not measured.
type figures struct {
	Name      string  `json:"name"`
	TCP1      float64 `json:"tcp1Gbps"`
	TCP4      float64 `json:"tcp4Gbps"`
	UDP       float64 `json:"udp1400Gbps"`
	RTT50     float64 `json:"rttP50us"`
	RTT99     float64 `json:"rttP99us"`
	CPUPerGiB float64 `json:"cpuSecondsPerGiB"`  // with one TCP stream; of the generator and of all tunnel processes
	CPU4      float64 `json:"cpuSecondsPerGiB4"` // with four
	CPUUDP    float64 `json:"cpuSecondsPerGiBUDP"`
	Skipped   string  `json:"skipped,omitempty"`

	samples map[string][]float64
}

// bar is a ratio that must hold.
type bar struct {
	What  string  `json:"what"`
	Want  float64 `json:"want"`
	Got   float64 `json:"got"`
	Holds bool    `json:"holds"`
}

var makers = []struct {
	name string
	make func(*workshop) way
}{
	{"plain veth", plainVeth},
	{"VXLAN", vxlan},
	{"bare WireGuard", bareWireGuard},
	{"OpenVPN AES-256-GCM", openVPN("AES-256-GCM")},
	{"OpenVPN AES-256-CBC", openVPN("AES-256-CBC")},
	{"Seaway same node", seawaySameNode},
	{"Seaway direct", seawayDirect},
	{"Seaway relayed", seawayRelayed},
}

// known says which of the wanted ways, names separated by commas, there is not.
func known(only string) error {
	var names []string
	for _, m := range makers {
		names = append(names, m.name)
	}
	for _, name := range strings.Split(only, ",") {
		if only != "" && !slices.Contains(names, name) {
			return fmt.Errorf("-only: there is no way %q; there are: %s", name, strings.Join(names, ", "))
		}
	}
	return nil
}

func (o *options) measure(ctx context.Context) error {
	if err := known(o.only); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "seaway-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w := &workshop{ctx: ctx, dir: dir, profile: o.profile}
	defer w.close()
	var ways []way
	all := map[string]*figures{}
	var order []*figures
	for _, m := range makers {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), m.name) {
			continue
		}
		f := &figures{Name: m.name, samples: map[string][]float64{}}
		all[m.name], order = f, append(order, f)
		v, err := w.make(m.make)
		if err == nil {
			v.name = m.name
			err = reach(ctx, v)
		}
		if err != nil {
			f.Skipped = err.Error()
			fmt.Fprintf(os.Stderr, "LEFT OUT: %s: %v\n", m.name, err)
			continue
		}
		ways = append(ways, v)
	}
	show := func(format string, a ...any) {
		if fi, err := os.Stderr.Stat(); err == nil && fi.Mode()&os.ModeCharDevice != 0 {
			fmt.Fprintf(os.Stderr, format, a...)
		}
	}
	var procs []int
	for _, v := range ways {
		procs = append(procs, v.procs...)
	}
	others := bystanders(procs)
	for r := range o.rounds {
		for _, v := range ways {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			show("\rround %d of %d: %-24s", r+1, o.rounds, v.name)
			if err := o.round(v, all[v.name].samples); err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
		}
	}
	show("\r%48s\r", "")
	for _, f := range order {
		f.medians()
	}
	busy := others()
	if busy > 0.2 {
		fmt.Printf("Others kept %.1f of %d processors busy meanwhile: rates and round trips are not this machine's, ratios of processor time nearly are.\n",
			busy, runtime.NumCPU())
	}
	return o.report(order, bars(all), busy)
}

// reach waits until the way carries packets.
func reach(ctx context.Context, v way) error {
	limit := time.Now().Add(20 * time.Second)
	for {
		_, err := v.from.Ping(v.addr, 200*time.Millisecond)
		if err == nil {
			return nil
		}
		if time.Now().After(limit) || ctx.Err() != nil {
			return err
		}
	}
}

func (o *options) round(v way, s map[string][]float64) error {
	for _, t := range strings.Split(o.tests, ",") {
		var cpu float64
		began := func() { cpu = cpuSeconds(v.procs) }
		ended := func() { cpu = cpuSeconds(v.procs) - cpu }
		var bytes int64
		var err error
		switch t {
		case "tcp1":
			bytes, err = tcp(v, 1, o.each, began, ended)
			if bytes > 0 {
				s["cpu"] = append(s["cpu"], cpu/(float64(bytes)/(1<<30)))
			}
		case "tcp4":
			bytes, err = tcp(v, 4, o.each, began, ended)
			if bytes > 0 {
				s["cpu4"] = append(s["cpu4"], cpu/(float64(bytes)/(1<<30)))
			}
		case "udp":
			bytes, err = udp(v, o.each, began, ended)
			if bytes > 0 {
				s["cpuudp"] = append(s["cpuudp"], cpu/(float64(bytes)/(1<<30)))
			}
		case "rtt":
			var times []time.Duration
			if times, err = rtt(v, 1000); err == nil {
				s["p50"] = append(s["p50"], micros(times[len(times)/2]))
				s["p99"] = append(s["p99"], micros(times[len(times)*99/100]))
			}
		default:
			err = fmt.Errorf("no measurement is called %q: there are tcp1, tcp4, udp, rtt", t)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
		if t != "rtt" {
			s[t] = append(s[t], float64(bytes)*8/o.each.Seconds()/1e9)
		}
	}
	return nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// cpuSeconds is the processor time used so far by this process and some others, user and system.
func cpuSeconds(procs []int) float64 {
	var ru unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &ru) // cannot fail with these arguments
	total := float64(ru.Utime.Nano()+ru.Stime.Nano()) / 1e9
	for _, p := range procs {
		data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p), "stat"))
		if err != nil {
			continue
		}
		f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
		user, _ := strconv.ParseFloat(f[11], 64) // proc(5): fields 14 and 15, in hundredths
		sys, _ := strconv.ParseFloat(f[12], 64)
		total += (user + sys) / 100
	}
	return total
}

// bystanders measures, from now until it is called, how many processors others than this program and its processes keep
// busy. The kernel's own work for the packets counts as theirs where it is not done in somebody's name.
func bystanders(procs []int) func() float64 {
	own, all, start := cpuSeconds(procs), allCPUSeconds(), time.Now()
	return func() float64 {
		return max(0, (allCPUSeconds()-all)-(cpuSeconds(procs)-own)) / time.Since(start).Seconds()
	}
}

// allCPUSeconds is the processor time that was used since the machine started: proc(5), /proc/stat, in hundredths.
func allCPUSeconds() float64 {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(data), "\n")
	total := 0.0
	for i, f := range strings.Fields(line)[1:] {
		if n, err := strconv.ParseFloat(f, 64); err == nil && i != 3 && i != 4 && i < 8 { // idle, iowait; guests count twice
			total += n / 100
		}
	}
	return total
}

func median(s []float64) float64 {
	if len(s) == 0 {
		return 0
	}
	s = slices.Sorted(slices.Values(s))
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

func (f *figures) medians() {
	f.TCP1, f.TCP4, f.UDP = median(f.samples["tcp1"]), median(f.samples["tcp4"]), median(f.samples["udp"])
	f.RTT50, f.RTT99, f.CPUPerGiB = median(f.samples["p50"]), median(f.samples["p99"]), median(f.samples["cpu"])
	f.CPU4, f.CPUUDP = median(f.samples["cpu4"]), median(f.samples["cpuudp"])
}

// bars compares the ways by what arrived, and by the processor time that it took, which says more where others use the
// machine's processors, too.
func bars(all map[string]*figures) []bar {
	var out []bar
	add := func(a, b string, want float64) {
		x, y := all[a], all[b]
		if x == nil || y == nil {
			return
		}
		for _, m := range []struct {
			name string
			x, y float64
		}{{"1 TCP stream", x.TCP1, y.TCP1}, {"4 TCP streams", x.TCP4, y.TCP4},
			{"processor time, 1 TCP stream", y.CPUPerGiB, x.CPUPerGiB}, {"processor time, 4 TCP streams", y.CPU4, x.CPU4}} {
			if m.x > 0 && m.y > 0 {
				got := m.x / m.y
				out = append(out, bar{fmt.Sprintf("%s ≥ %g × %s, %s", a, want, b, m.name), want, got, got >= want})
			}
		}
	}
	add("Seaway direct", "bare WireGuard", 0.95)
	add("Seaway relayed", "Seaway direct", 0.7)
	add("Seaway direct", "OpenVPN AES-256-GCM", 5)
	add("Seaway direct", "OpenVPN AES-256-CBC", 5)
	add("Seaway same node", "plain veth", 0.8)
	return out
}

func (o *options) report(all []*figures, bars []bar, others float64) error {
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "way\t1 TCP\t4 TCP\tUDP 1400 B\tRTT p50\tRTT p99\tCPU per GiB\t4 TCP\tUDP\t")
	fmt.Fprintln(t, "\tGbit/s\tGbit/s\tGbit/s\tµs\tµs\ts\ts\ts\t")
	for _, f := range all {
		if f.Skipped != "" {
			fmt.Fprintf(t, "%s\tleft out\t\t\t\t\t\t\t\t\n", f.Name)
			continue
		}
		fmt.Fprintf(t, "%s\t%.2f\t%.2f\t%.2f\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t\n", f.Name, f.TCP1, f.TCP4, f.UDP, f.RTT50, f.RTT99, f.CPUPerGiB, f.CPU4, f.CPUUDP)
	}
	t.Flush()
	for _, b := range bars {
		verdict := "holds"
		if !b.Holds {
			verdict = "FAILS"
		}
		fmt.Printf("%s: %.2f  %s\n", verdict, b.Got, b.What)
	}
	if o.out == "" {
		return nil
	}
	var uts unix.Utsname
	_ = unix.Uname(&uts) // cannot fail with a valid pointer
	data, err := json.MarshalIndent(map[string]any{"ways": all, "bars": bars, "rounds": o.rounds, "seconds": o.each.Seconds(),
		"cpus": runtime.NumCPU(), "cpusBusyWithOthers": others, "kernel": unix.ByteSliceToString(uts.Release[:]), "go": runtime.Version(), "at": time.Now().UTC()}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.out, append(data, '\n'), 0o644)
}
