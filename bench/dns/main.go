// Dns measures Seaway's DNS server and CoreDNS side by side: the same names, the same questions, the same dnsperf, each
// server in turn in a network namespace of its own, again and again so that a busy machine troubles both. What counts
// is queries per second of the server's CPU time, since an agent shares its node with the applications.
//
//	make bench-dns              needs root, dnsperf (Debian) and the lab's CoreDNS (seaway-lab setup)
//	make bench-dns OUT=FILE     writes the results as JSON, too
//
// CoreDNS serves the names from its hosts plugin, with and without its cache plugin in front. The hosts plugin has no
// SRV records, so none are asked for.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	miekg "github.com/miekg/dns"

	"seaway.dev/seaway/discovery/dns"
	"seaway.dev/seaway/discovery/zone"
	"seaway.dev/seaway/fleet"
)

// The namespaces and addresses of the rig.
const (
	serverNS, clientNS = "dnsbench-server", "dnsbench-client"
	serverIP, clientIP = "192.0.2.1", "192.0.2.2"
	port               = "5300"
)

func main() {
	out := flag.String("out", "", "write the results as JSON to this file")
	coredns := flag.String("coredns", "", "CoreDNS's program; the lab's if empty")
	rounds := flag.Int("rounds", 3, "how often each server is measured")
	length := flag.Duration("length", 5*time.Second, "of one measurement")
	serve := flag.Bool("serve", false, "be the server (the bench starts itself so)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := error(nil)
	if *serve {
		err = beServer(ctx)
	} else {
		err = bench(ctx, *out, *coredns, *rounds, *length)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-dns:", err)
		os.Exit(1)
	}
}

// services are what is asked for: a thousand with an address, and a hundred headless ones of three pods.
func services() []fleet.Service {
	var out []fleet.Service
	for i := range 1000 {
		out = append(out, fleet.Service{Namespace: "shop", Name: fmt.Sprintf("web%d", i), Slice: "pay",
			IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)})}, Ports: []fleet.Port{{Name: "http", Protocol: fleet.TCP, Port: 80}}})
	}
	for i := range 100 {
		s := fleet.Service{Namespace: "shop", Name: fmt.Sprintf("db%d", i), Slice: "pay", Headless: true, Ports: []fleet.Port{{Name: "pg", Protocol: fleet.TCP, Port: 5432}}}
		for p := range 3 {
			host := fmt.Sprintf("db%d-%d", i, p)
			s.Endpoints = append(s.Endpoints, fleet.Endpoint{Cluster: "c1", Pod: host, Hostname: host, Ready: true,
				Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 78, byte(i), byte(p)})}, Ports: map[string]uint16{"pg": 5432}})
		}
		out = append(out, s)
	}
	return out
}

// load is a list of questions.
type load struct {
	name      string
	questions []string // "name type"
}

func loads() []load {
	const base = ".svc.clusterset.local."
	var a, mix []string
	for i := range 1000 {
		a = append(a, fmt.Sprintf("web%d.shop%s A", i, base))
		if i%10 == 0 {
			n := i / 10
			mix = append(mix, fmt.Sprintf("db%d.shop%s A", n, base), fmt.Sprintf("db%d-1.c1.db%d.shop%s A", n, n, base),
				fmt.Sprintf("db%d.shop%s AAAA", n, base),
				fmt.Sprintf("none%d.shop%s A", n, base), fmt.Sprintf("web%d.shop%s A", i, base))
		}
	}
	return []load{{"A", a}, {"mix", mix}}
}

func beServer(ctx context.Context) error {
	var s dns.State
	s.OnIntent(fleet.Intent{Services: services()})
	return dns.Serve(ctx, dns.Config{Addrs: []netip.AddrPort{netip.MustParseAddrPort(serverIP + ":" + port)}, Log: slog.New(slog.DiscardHandler)}, s.Zone)
}

// contender is a server to be measured.
type contender struct {
	name string
	args []string
}

// result is one server under one load.
type result struct {
	Server     string  `json:"server"`
	Load       string  `json:"load"`
	Rate       float64 `json:"queriesPerSecond"`    // median of the rounds
	PerCPU     float64 `json:"queriesPerCPUSecond"` // median of the rounds
	CPU        float64 `json:"cpuShare"`            // of one core, median
	Lost       float64 `json:"lost"`                // queries, worst round
	LatencyAvg float64 `json:"latencyMs"`           // median
}

func bench(ctx context.Context, out, coredns string, rounds int, length time.Duration) error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root: run this as root")
	}
	if _, err := exec.LookPath("dnsperf"); err != nil {
		return errors.New("dnsperf is missing: apt-get install dnsperf")
	}
	coredns, err := findCoreDNS(coredns)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "seaway-bench-dns-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	contenders, err := prepare(dir, coredns)
	if err != nil {
		return err
	}
	defer tearDown()
	if err := setUp(ctx); err != nil {
		return err
	}
	seen := map[[2]string][]result{}
	for round := range rounds {
		for _, l := range loads() {
			for _, c := range contenders {
				r, err := measure(ctx, c, l, filepath.Join(dir, l.name), length)
				if err != nil {
					return fmt.Errorf("%s under load %s: %w", c.name, l.name, err)
				}
				fmt.Printf("round %d  %-14s %-4s %8.0f q/s  %8.0f q per CPU second  %.2f cores  %.0f lost\n", round+1, c.name, l.name, r.Rate, r.PerCPU, r.CPU, r.Lost)
				seen[[2]string{c.name, l.name}] = append(seen[[2]string{c.name, l.name}], r)
			}
		}
	}
	return report(out, contenders, seen)
}

func report(out string, contenders []contender, seen map[[2]string][]result) error {
	var all []result
	fmt.Printf("\n%-14s %-4s %10s %16s %8s %8s\n", "server", "load", "q/s", "q per CPU-second", "cores", "lost")
	for _, l := range loads() {
		for _, c := range contenders {
			rs := seen[[2]string{c.name, l.name}]
			r := result{Server: c.name, Load: l.name,
				Rate:       median(rs, func(r result) float64 { return r.Rate }),
				PerCPU:     median(rs, func(r result) float64 { return r.PerCPU }),
				CPU:        median(rs, func(r result) float64 { return r.CPU }),
				LatencyAvg: median(rs, func(r result) float64 { return r.LatencyAvg }),
			}
			for _, one := range rs {
				r.Lost = max(r.Lost, one.Lost)
			}
			fmt.Printf("%-14s %-4s %10.0f %16.0f %8.2f %8.0f\n", r.Server, r.Load, r.Rate, r.PerCPU, r.CPU, r.Lost)
			all = append(all, r)
		}
	}
	if out == "" {
		return nil
	}
	b, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(b, '\n'), 0o644)
}

func median(rs []result, of func(result) float64) float64 {
	var vs []float64
	for _, r := range rs {
		vs = append(vs, of(r))
	}
	slices.Sort(vs)
	return vs[len(vs)/2]
}

// findCoreDNS finds the newest that the lab has built.
func findCoreDNS(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(cache, "seaway-lab", "bin", "coredns-*", "coredns"))
	if err != nil || len(found) == 0 {
		return "", errors.New("the lab's CoreDNS is not built yet: run `seaway-lab setup`, or say -coredns FILE")
	}
	age := func(file string) int64 {
		fi, err := os.Stat(file)
		if err != nil {
			return 0
		}
		return -fi.ModTime().UnixNano()
	}
	slices.SortFunc(found, func(a, b string) int { return cmp.Compare(age(a), age(b)) })
	return found[0], nil
}

// prepare writes the questions, the hosts file of the same names, and CoreDNS's configurations.
func prepare(dir, coredns string) ([]contender, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	z := zone.Build(services(), nil)
	var records strings.Builder
	written := map[string]bool{}
	for _, l := range loads() {
		if err := os.WriteFile(filepath.Join(dir, l.name), []byte(strings.Join(l.questions, "\n")+"\n"), 0o644); err != nil {
			return nil, err
		}
		for _, q := range l.questions {
			name, kind, _ := strings.Cut(q, " ")
			for _, rr := range z.Lookup(name, miekg.StringToType[kind]).Records {
				a, ok := rr.(*miekg.A)
				if line := fmt.Sprintf("%v %s\n", a.A, strings.TrimSuffix(name, ".")); ok && !written[line] {
					written[line] = true
					records.WriteString(line)
				}
			}
		}
	}
	hosts := filepath.Join(dir, "hosts")
	if err := os.WriteFile(hosts, []byte(records.String()), 0o644); err != nil {
		return nil, err
	}
	out := []contender{{"seaway", []string{self, "-serve"}}}
	for name, extra := range map[string]string{"coredns": "", "coredns-cache": "    cache 30\n"} {
		file := filepath.Join(dir, "Corefile."+name)
		text := fmt.Sprintf("clusterset.local:%s {\n%s    hosts %s clusterset.local {\n        ttl 5\n    }\n}\n", port, extra, hosts)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return nil, err
		}
		out = append(out, contender{name, []string{coredns, "-conf", file}})
	}
	slices.SortFunc(out[1:], func(a, b contender) int { return cmp.Compare(a.name, b.name) })
	return out, nil
}

func setUp(ctx context.Context) error {
	tearDown()
	for _, line := range []string{
		"netns add " + serverNS, "netns add " + clientNS,
		"link add dnsb0 netns " + serverNS + " type veth peer name dnsb1 netns " + clientNS,
		"-n " + serverNS + " addr add " + serverIP + "/30 dev dnsb0", "-n " + serverNS + " link set dnsb0 up",
		"-n " + clientNS + " addr add " + clientIP + "/30 dev dnsb1", "-n " + clientNS + " link set dnsb1 up",
	} {
		if b, err := exec.CommandContext(ctx, "ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, b)
		}
	}
	return nil
}

func tearDown() {
	for _, ns := range []string{serverNS, clientNS} {
		_ = exec.Command("ip", "netns", "delete", ns).Run() // not there: nothing to do
	}
}

// figures finds dnsperf's results.
var figures = map[string]*regexp.Regexp{
	"rate":    regexp.MustCompile(`Queries per second:\s+([\d.]+)`),
	"done":    regexp.MustCompile(`Queries completed:\s+(\d+)`),
	"lost":    regexp.MustCompile(`Queries lost:\s+(\d+)`),
	"latency": regexp.MustCompile(`Average Latency \(s\):\s+([\d.]+)`),
}

// measure starts a server, warms it up, and lets dnsperf ask.
func measure(ctx context.Context, c contender, l load, file string, length time.Duration) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, length+40*time.Second)
	defer cancel()
	server := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", serverNS}, c.args...)...)
	server.Stdout, server.Stderr = io.Discard, os.Stderr
	if err := server.Start(); err != nil {
		return result{}, err
	}
	defer func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		_ = server.Wait()
	}()
	perf := func(d time.Duration) (string, error) {
		b, err := exec.CommandContext(ctx, "ip", "netns", "exec", clientNS, "dnsperf", "-s", serverIP, "-p", port, "-d", file,
			"-l", strconv.FormatFloat(d.Seconds(), 'f', -1, 64), "-c", "4", "-T", "1", "-q", "100", "-t", "2").CombinedOutput()
		return string(b), err
	}
	if err := answering(ctx); err != nil {
		return result{}, err
	}
	if _, err := perf(time.Second); err != nil {
		return result{}, err
	}
	before, err := cpu(server.Process.Pid)
	if err != nil {
		return result{}, err
	}
	text, err := perf(length)
	if err != nil {
		return result{}, fmt.Errorf("dnsperf: %w: %s", err, text)
	}
	after, err := cpu(server.Process.Pid)
	if err != nil {
		return result{}, err
	}
	got := map[string]float64{}
	for name, re := range figures {
		m := re.FindStringSubmatch(text)
		if m == nil {
			return result{}, fmt.Errorf("dnsperf says nothing of %s:\n%s", name, text)
		}
		got[name], _ = strconv.ParseFloat(m[1], 64) // it is digits
	}
	used := (after - before).Seconds()
	return result{Server: c.name, Load: l.name, Rate: got["rate"], PerCPU: got["done"] / used, CPU: used / length.Seconds(),
		Lost: got["lost"], LatencyAvg: 1000 * got["latency"]}, nil
}

// answering waits until the server answers.
func answering(ctx context.Context) error {
	for {
		err := exec.CommandContext(ctx, "ip", "netns", "exec", clientNS, "sh", "-c",
			"echo web1.shop.svc.clusterset.local. A | dnsperf -s "+serverIP+" -p "+port+" -n 1 -t 1 | grep -q 'Queries completed: *1'").Run()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// cpu is how long a process has run, in user and kernel mode (proc(5): fields 14 and 15 of stat, in ticks of 10 ms).
func cpu(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	text := string(b)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // from field 3 on
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
