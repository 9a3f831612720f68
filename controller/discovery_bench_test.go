package controller_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	_ "net/http/pprof" // the child's profiles, asked for by the bench
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	runtimepprof "runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcscrd "sigs.k8s.io/mcs-api/config/crd"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/bulletin/post"
	"seaway.dev/seaway/controller"
	"seaway.dev/seaway/datapath"
	"seaway.dev/seaway/datapath/netnstest"
	"seaway.dev/seaway/datapath/podtest"
	"seaway.dev/seaway/delta"
	crds "seaway.dev/seaway/deploy/crds"
	"seaway.dev/seaway/fleet"
	role "seaway.dev/seaway/slice/node"
)

// The bench of service discovery at scale. Two members have real API servers, controllers (processes of their own) and
// in one of them a real agent with a real nftables table; the other clusters are generated, signed bulletins.
var (
	benchOn     = flag.Bool("discovery-bench", false, "run the bench of service discovery (minutes; root)")
	benchOut    = flag.String("discovery-out", "", "`FILE` for the figures as JSON")
	benchSizes  = flag.String("discovery-sizes", "100,1000,10000", "endpoints in the fleet, sizes separated by commas")
	benchFlips  = flag.Int("discovery-flips", 40, "measured changes a size and load")
	benchProf   = flag.String("discovery-profiles", "", "`DIR` for CPU profiles of the controller and of the rest")
	childMember = flag.String("discovery-child", "", "(internal) be a controller: NAME,MEMBER-URL,HUB-URL,LISTEN,PROFILES")
)

// TestDiscoveryChild is a controller in a process of its own, so that its memory and CPU can be told.
func TestDiscoveryChild(t *testing.T) {
	if *childMember == "" {
		t.Skip("part of the bench of service discovery")
	}
	parts := strings.Split(*childMember, ",")
	at := func(url string) *rest.Config {
		return &rest.Config{Host: url, BearerToken: "admin", TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: -1}
	}
	profiles := &http.Server{Addr: parts[4], Handler: http.DefaultServeMux, ReadHeaderTimeout: time.Second}
	go func() { t.Log(profiles.ListenAndServe()) }()
	err := controller.Run(t.Context(), controller.Config{
		Cluster: parts[0], Pod: "controller-a", Software: "bench", Member: at(parts[1]), Listen: parts[3], Metrics: "0", Health: "0",
		Hub: func(context.Context) (*rest.Config, error) { return at(parts[2]), nil },
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	t.Log(err)
}

func (c *cluster) child(hub *cluster) (url, profiles string, proc *exec.Cmd) {
	if err := client.IgnoreAlreadyExists(c.client.Create(c.t.Context(), pod("seaway-system", "controller-a", "n1", ""))); err != nil {
		c.t.Fatal(err)
	}
	listen := freePort(c.t)
	profiles = "http://" + freePort(c.t)
	log, err := os.Create(filepath.Join(c.w.dir, c.name+"-controller.log"))
	if err != nil {
		c.t.Fatal(err)
	}
	proc = exec.Command(os.Args[0], "-test.run=^TestDiscoveryChild$", "-test.timeout=30m",
		"-discovery-child="+strings.Join([]string{c.name, c.config.Host, hub.config.Host, listen, strings.TrimPrefix(profiles, "http://")}, ","))
	proc.Stdout, proc.Stderr = log, log
	proc.Env = append(os.Environ(), "GOMEMLIMIT=300MiB")
	if err := proc.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = proc.Process.Kill()
		_ = proc.Wait()
		if c.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			c.t.Logf("controller of %s said:\n%s", c.name, text[max(0, len(text)-3000):])
		}
	})
	return "https://" + listen, profiles, proc
}

// figures are what one size and load gave.
type figures struct {
	Clusters, Services, Endpoints int
	ChangesPerSecond              int
	Flips                         int
	P50, P99, Max                 float64 // milliseconds from "ready" to "traffic reaches it"
	// Where that goes, P50 and P99 in milliseconds: until c1's carrier has the letter; from there until c2's agent has the
	// plan; until the kernel has it.
	Letter, Plan, Kernel [2]float64
	ControllerMiB        float64
	ControllerCPU        float64 // share of a core
	AgentCPU             float64 // of this process: agent, generator, its carrier and the other member's
	SenderCPU            float64 // of the controller of the cluster that the changes are made in
	ServersCPU           float64 // of the two members' API servers, without etcd
	MachineCPU           float64 // cores in use by everything on this machine

	Changes int // made while it was measured: flips to and fro, and the churn
	Plans   int // that the agent gave the kernel meanwhile
	// Processor time by change, milliseconds. Changes that come together are worked off together.
	ControllerPerChange, AgentPerChange, SenderPerChange float64
}

func TestBenchDiscovery(t *testing.T) {
	if !*benchOn {
		t.Skip("SKIPPED: a bench; `make bench-discovery` runs it")
	}
	netnstest.NeedRoot(t)
	var all []figures
	for _, text := range strings.Split(*benchSizes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(text, func(t *testing.T) {
			b := newBenchFleet(t, n)
			for _, rate := range []int{0, 500} {
				f := b.measure(rate)
				all = append(all, f)
				t.Logf("%+v", f)
			}
		})
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(string(text))
	if *benchOut != "" {
		if err := os.WriteFile(*benchOut, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const benchClusters = 100

// benchFleet is c1, which is measured from, c2, which is measured in, and the generated rest.
type benchFleet struct {
	t         *testing.T
	c1, c2    *cluster
	endpoints int
	proc      *exec.Cmd // c2's controller
	profiles  string    // where it shows its profiles
	sender    *exec.Cmd // c1's controller
	kernel    *watchedKernel
	letters   chan time.Time // when c1's carrier got something newer of c1
	office    *post.Office   // of c3, which carries the generated clusters' news
	keys      map[string]ed25519.PrivateKey
	said      map[string]*fleet.Bulletin
	store     *bulletin.Store
	services  int          // in the fleet
	told      atomic.Int64 // changes of generated clusters
}

// Of every ten endpoints one service; each cluster has as many.
func (b *benchFleet) perCluster() int { return max(b.endpoints/benchClusters, 1) }

func name(i int) string { return fmt.Sprintf("c%d", i) }

func newBenchFleet(t *testing.T, endpoints int) *benchFleet {
	w := newWorld(t)
	hub := w.cluster("hub")
	b := &benchFleet{t: t, c1: w.cluster("c1"), c2: w.cluster("c2"), endpoints: endpoints, keys: map[string]ed25519.PrivateKey{}, said: map[string]*fleet.Bulletin{}}
	hub.define(crds.Clusters, crds.Slices)
	hub.enrol("c1", false)
	hub.enrol("c2", false)
	var rows []v1alpha1.SliceCluster
	for i := 1; i <= benchClusters; i++ {
		rows = append(rows, v1alpha1.SliceCluster{Name: name(i), Blocks: []string{block(i).String()}})
		if i <= 2 {
			continue
		}
		seed := make([]byte, ed25519.SeedSize)
		seed[0] = byte(i)
		b.keys[name(i)] = ed25519.NewKeyFromSeed(seed)
		o := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: name(i)}}
		hub.create(o)
		b.publish(hub, name(i), fleet.Key(b.keys[name(i)].Public().(ed25519.PublicKey)))
	}
	hub.slice("pay", []v1alpha1.CIDR{"10.64.0.0/10"}, []string{"shop"}, rows...)
	urls := map[string]string{}
	for _, c := range []*cluster{b.c1, b.c2} {
		c.define(mcscrd.ServiceExportCRD, mcscrd.ServiceImportCRD)
		c.create(ns("seaway-system"), ns("shop"), node("n1"), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "seaway-system", Name: "seaway-agent"}})
		url, profiles, proc := c.child(hub)
		urls[c.name] = url
		if c == b.c2 {
			b.proc, b.profiles = proc, profiles
		} else {
			b.sender = proc
		}
	}
	for _, c := range []*cluster{b.c1, b.c2} {
		eventually(t, time.Minute, c.name+" shows its key", func(ctx context.Context) error {
			cm := &corev1.ConfigMap{}
			if err := hub.client.Get(ctx, client.ObjectKey{Namespace: "seaway-" + c.name, Name: "bulletin"}, cm); err != nil {
				return err
			}
			said, err := bulletin.Decode(cm.BinaryData["bulletin"])
			if err == nil && said.Signer.IsZero() {
				err = errors.New("no key in it")
			}
			if err == nil {
				b.publish(hub, c.name, said.Signer)
			}
			return err
		})
	}
	b.agents(urls)
	b.fill()
	return b
}

func block(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + i/16), byte(i % 16 * 16), 0}), 20)
}

// publish does the hub's part: the cluster's key in its status.
func (b *benchFleet) publish(hub *cluster, cluster string, key fleet.Key) {
	o := &v1alpha1.Cluster{}
	if err := hub.client.Get(b.t.Context(), client.ObjectKey{Name: cluster}, o); err != nil {
		b.t.Fatal(err)
	}
	o.Status.Signer = key.String()
	if err := hub.client.Status().Update(b.t.Context(), o); err != nil {
		b.t.Fatal(err)
	}
}

// agents starts c2's real agent, and c1's: its links are said to be there, and a bench's office carries its bulletins.
func (b *benchFleet) agents(urls map[string]string) {
	t := b.t
	sea := &sea{at: map[netip.Addr]*harbour{}}
	one := b.c1.agent("n1", urls["c1"], 11)
	b.store = bulletin.NewStore(func(c string) (fleet.Key, bool) {
		k, ok := b.keys[c]
		if !ok {
			return fleet.Key{}, false
		}
		return fleet.Key(k.Public().(ed25519.PublicKey)), true
	})
	b.office = post.New(post.Config{Cluster: "c3", Node: "n1", Store: b.store})
	blind := bulletin.NewStore(func(c string) (fleet.Key, bool) { // c1's carrier believes the same, and c1 and c2
		one.mu.Lock()
		defer one.mu.Unlock()
		if one.intent == nil || one.intent.Carry == nil {
			return fleet.Key{}, false
		}
		k, ok := one.intent.Carry.Signers[c]
		return k, ok
	})
	b.letters = make(chan time.Time, 1000)
	first := post.New(post.Config{Cluster: "c1", Node: "n1", Store: blind, News: func(cluster, _ string) {
		if cluster == "c1" {
			select {
			case b.letters <- time.Now():
			default:
			}
		}
	}})
	var tasks sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); tasks.Wait() })
	again := func(f func() error) {
		tasks.Go(func() {
			for ctx.Err() == nil {
				_ = f()
				select {
				case <-ctx.Done():
				case <-time.After(300 * time.Millisecond):
				}
			}
		})
	}
	again(func() error {
		conn, err := upgrade(ctx, one)
		if err != nil {
			return err
		}
		return first.Serve(ctx, conn, post.Peer{Cluster: "c1"})
	})
	for from, office := range map[string]*post.Office{"c1": first, "c3": b.office} {
		h := sea.harbour(from, "n1")
		tasks.Go(func() {
			l, _ := h.Listen(0)
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				tasks.Go(func() { _ = office.Serve(ctx, conn, conn.(*voyage).peer) })
			}
		})
		for _, to := range []string{"c1", "c2"} {
			if from == to || from > to && from != "c3" {
				continue
			}
			again(func() error {
				conn, err := h.Dial(ctx, netip.AddrPortFrom(fleet.ManagementAddr(to, "n1"), 0))
				if err != nil {
					return err
				}
				return office.Serve(ctx, conn, post.Peer{Cluster: to, Node: "n1"})
			})
		}
	}
	t.Cleanup(sea.dry)
	b.agent(urls["c2"], sea.harbour("c2", "n1"))
}

// agent runs c2's agent: the controller's stream, the kernel and a pod are real, the tunnel is not.
func (b *benchFleet) agent(url string, abroad role.Abroad) {
	t := b.t
	helper := b.c2.agent("n1", "https://127.0.0.1:1", 21) // for its token
	dir := t.TempDir()
	machine := podtest.NewNode(t)
	sandbox := machine.Pod(t, "u")
	var boxes podtest.Sandboxes
	log := slog.New(slog.DiscardHandler)
	kernel := datapath.New(datapath.Config{NetNSDir: filepath.Join(dir, "run/netns"), Sandboxes: &boxes, Log: log})
	b.kernel = &watchedKernel{Kernel: kernel, seen: map[string]applied{}}
	p := pod("shop", "client", "n1", "")
	p.Status.PodIPs = nil
	b.c2.create(p)
	boxes.Set(string(p.UID), sandbox.NS)
	ca, token := filepath.Join(dir, "ca"), filepath.Join(dir, "token")
	cm := &corev1.ConfigMap{}
	if err := b.c2.client.Get(t.Context(), client.ObjectKey{Namespace: "seaway-system", Name: controller.AuthorityMap}, cm); err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode([]byte(cm.Data[controller.AuthorityKey])); block == nil {
		t.Fatal("no authority")
	}
	if err := errors.Join(os.WriteFile(ca, []byte(cm.Data[controller.AuthorityKey]), 0o600), os.WriteFile(token, []byte(strings.TrimPrefix(helper.auth, "Bearer ")), 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- role.Run(ctx, role.Config{
			Node: "n1", Controller: url, CAFile: ca, TokenFile: token, RunDir: filepath.Join(dir, "run"),
			StateDir: filepath.Join(dir, "state"), HostRoot: "/", Addrs: []netip.Addr{netip.MustParseAddr("198.51.100.21")}, MTU: 1500,
			Transport: helper.http.Transport, Tunnel: noTunnel{}, Datapath: b.kernel, Pods: noSandboxes{}, Abroad: abroad, Log: log,
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		boxes.Set(string(p.UID), nil)
		if err := kernel.Purge(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func upgrade(ctx context.Context, a *agent) (io.ReadWriteCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+"/v1/bulletins", nil)
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{"Authorization": {a.auth}, "Connection": {"Upgrade"}, "Upgrade": {"seaway-bulletins"}}
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		_ = resp.Body.Close()
		return nil, errors.New(resp.Status)
	}
	return conn, nil
}

// fill says everything once: c1's services, and what the generated clusters have.
func (b *benchFleet) fill() {
	t := b.t
	per := b.perCluster()
	b.services = (benchClusters - 1) * ((per + 9) / 10) // c2 exports nothing
	for s := range (per + 9) / 10 {
		svc := fmt.Sprintf("c1-s%d", s)
		b.c1.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: svc}, Spec: corev1.ServiceSpec{
			Ports: []corev1.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}}}},
			&mcs.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: svc}})
		var eps []discoveryv1.Endpoint
		for i := s * 10; i < min(per, s*10+10); i++ {
			p := pod("shop", fmt.Sprintf("c1-p%d", i), "n1", "")
			b.ready(p)
			yes, n1 := true, "n1"
			eps = append(eps, discoveryv1.Endpoint{Addresses: []string{"10.244.0.9"}, Conditions: discoveryv1.EndpointConditions{Ready: &yes},
				NodeName: &n1, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: p.Name}})
		}
		port, http, tcp := int32(8080), "http", corev1.ProtocolTCP
		b.c1.create(&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: svc, Labels: map[string]string{discoveryv1.LabelServiceName: svc}},
			AddressType: discoveryv1.AddressTypeIPv4, Endpoints: eps, Ports: []discoveryv1.EndpointPort{{Name: &http, Port: &port, Protocol: &tcp}}})
	}
	for i := 3; i <= benchClusters; i++ {
		bl := &fleet.Bulletin{Version: 1, Cluster: name(i), Epoch: 1, Rev: 1}
		if i == 3 {
			bl.Nodes = []fleet.Node{{Name: "n1", Cluster: "c3", Port: 51871, Gateway: true, Carrier: true, Keys: map[string]fleet.Key{"seaway": {3, 3}}}}
		}
		for e := range per {
			a := block(i).Addr()
			for range e + 1 {
				a = a.Next()
			}
			p := fleet.Pod{Namespace: "shop", Name: fmt.Sprintf("%s-p%04d", name(i), e), Slice: "pay", Cluster: name(i), Node: "n1", Addrs: []netip.Addr{a}, Ready: true}
			bl.Pods = append(bl.Pods, p)
			if e%10 == 0 {
				bl.Exports = append(bl.Exports, fleet.Export{Namespace: "shop", Name: fmt.Sprintf("%s-s%04d", name(i), e/10), Slice: "pay", Created: time.Unix(1e9, 0).UTC(),
					Ports: []fleet.Port{{Name: "http", Protocol: fleet.TCP, Port: 80}}})
			}
			x := &bl.Exports[len(bl.Exports)-1]
			x.Endpoints = append(x.Endpoints, fleet.Endpoint{Cluster: name(i), Node: "n1", Pod: p.Name, Addrs: p.Addrs, Ready: true, Ports: map[string]uint16{"http": 8080}})
		}
		b.say(bl)
	}
	eventually(t, 2*time.Minute, "c2's node balances all services", func(context.Context) error {
		b.kernel.mu.Lock()
		defer b.kernel.mu.Unlock()
		if b.kernel.services < b.services || b.kernel.backends < (benchClusters-1)*per {
			return fmt.Errorf("%d services of %d with %d backends of %d", b.kernel.services, b.services, b.kernel.backends, (benchClusters-1)*per)
		}
		return nil
	})
}

// ready makes a pod of c1 and has it Ready. The controller may write on it at the same time.
func (b *benchFleet) ready(p *corev1.Pod) {
	b.t.Helper()
	status := p.Status
	if err := b.c1.client.Create(b.t.Context(), p); err != nil {
		b.t.Fatal(err)
	}
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.c1.client.Status().Patch(b.t.Context(), p, client.RawPatch(types.StrategicMergePatchType, patch)); err != nil {
		b.t.Fatal(err)
	}
}

// say posts what a generated cluster says, as a change if it has said something.
func (b *benchFleet) say(now *fleet.Bulletin) {
	var d *fleet.BulletinDelta
	if old := b.said[now.Cluster]; old != nil && now.Rev%100 != 0 {
		d = delta.Bulletin(old, now)
	}
	b.said[now.Cluster] = now
	l, err := bulletin.Write(now, d, b.keys[now.Cluster])
	if err == nil {
		err = b.office.Post(l)
	}
	if err != nil {
		b.t.Error(err)
	}
}

// churn flips the readiness of generated endpoints, so many a second in all, until ctx ends.
func (b *benchFleet) churn(ctx context.Context, rate int) {
	every := 10 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for range rate / 100 {
			c := name(3 + n%(benchClusters-2))
			old := b.said[c]
			now := *old
			now.Rev++
			now.Exports = slices.Clone(old.Exports)
			x := &now.Exports[n/(benchClusters-2)%len(now.Exports)]
			x.Endpoints = slices.Clone(x.Endpoints)
			e := &x.Endpoints[n%len(x.Endpoints)]
			e.Ready = !e.Ready
			b.say(&now)
			b.told.Add(1)
			n++
		}
	}
}

// measure flips the readiness of c1's first endpoint and waits until c2's node sends traffic to it.
func (b *benchFleet) measure(rate int) figures {
	t := b.t
	ctx, stop := context.WithCancel(t.Context())
	var churning sync.WaitGroup
	if rate > 0 {
		churning.Go(func() { b.churn(ctx, rate) })
		<-time.After(2 * time.Second) // until it flows
	}
	profiled := b.profile(rate)
	began, told, applied, used := time.Now(), b.told.Load(), b.kernel.plans.Load(), b.used()
	var took, letter, planned, done []float64
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	es := &discoveryv1.EndpointSlice{}
	if err := b.c1.client.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "c1-s0"}, es); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * *benchFlips {
		ready := i%2 == 1
		es.Endpoints[0].Conditions.Ready = &ready
		for len(b.letters) > 0 {
			<-b.letters
		}
		at := time.Now()
		if err := b.c1.client.Update(t.Context(), es); err != nil {
			t.Fatal(err)
		}
		when := b.kernel.wait(t, "shop/c1-s0", len(es.Endpoints), ready)
		if ready {
			took = append(took, ms(when.done.Sub(at)))
			said := at
			select {
			case said = <-b.letters:
			default: // it went by the hub
			}
			letter, planned, done = append(letter, ms(said.Sub(at))), append(planned, ms(when.began.Sub(said))), append(done, ms(when.done.Sub(when.began)))
		}
	}
	f := figures{Clusters: benchClusters, Services: b.services, Endpoints: b.endpoints, ChangesPerSecond: rate, Flips: len(took)}
	ends := func(took []float64) [2]float64 {
		slices.Sort(took)
		return [2]float64{took[len(took)/2], took[len(took)*99/100]}
	}
	all := ends(took)
	f.P50, f.P99, f.Max = all[0], all[1], took[len(took)-1]
	f.Letter, f.Plan, f.Kernel = ends(letter), ends(planned), ends(done)
	span := time.Since(began).Seconds()
	changes := float64(2**benchFlips) + float64(b.told.Load()-told)
	for i, now := range b.used() {
		used[i] = now - used[i]
	}
	f.ControllerCPU, f.AgentCPU, f.SenderCPU, f.ServersCPU, f.MachineCPU = used[0]/span, used[1]/span, used[2]/span, used[3]/span, used[4]/span
	f.Changes, f.Plans = int(changes), int(b.kernel.plans.Load()-applied)
	f.ControllerPerChange, f.AgentPerChange, f.SenderPerChange = 1000*used[0]/changes, 1000*used[1]/changes, 1000*used[2]/changes
	f.ControllerMiB = rssOf(t, b.proc.Process.Pid)
	stop()
	churning.Wait()
	profiled()
	return f
}

// used is the processor time used so far, in seconds: by c2's controller, this process, c1's controller, the API servers
// of both, and everything on the machine.
func (b *benchFleet) used() [5]float64 {
	t := b.t
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	busy := 0.0
	for i, field := range strings.Fields(line)[1:9] { // user nice system idle iowait irq softirq steal
		if n, _ := strconv.ParseFloat(field, 64); i != 3 && i != 4 {
			busy += n / 100
		}
	}
	return [5]float64{cpuOf(t, b.proc.Process.Pid), cpuOf(t, os.Getpid()), cpuOf(t, b.sender.Process.Pid),
		cpuOf(t, b.c1.proc.Process.Pid) + cpuOf(t, b.c2.proc.Process.Pid), busy}
}

// profile has the controller and this process profiled until done is called, if that is asked for.
func (b *benchFleet) profile(rate int) (done func()) {
	if *benchProf == "" {
		return func() {}
	}
	file := func(who string) *os.File {
		f, err := os.Create(filepath.Join(*benchProf, fmt.Sprintf("%s-%d-%d.pprof", who, b.endpoints, rate)))
		if err != nil {
			b.t.Fatal(err)
		}
		return f
	}
	var tasks sync.WaitGroup
	tasks.Go(func() {
		resp, err := http.Get(b.profiles + "/debug/pprof/profile?seconds=4")
		if err != nil {
			b.t.Error(err)
			return
		}
		defer resp.Body.Close()
		f := file("controller")
		defer f.Close()
		if _, err := io.Copy(f, resp.Body); err != nil {
			b.t.Error(err)
		}
	})
	f := file("agent")
	if err := runtimepprof.StartCPUProfile(f); err != nil {
		b.t.Fatal(err)
	}
	return func() {
		runtimepprof.StopCPUProfile()
		_ = f.Close()
		tasks.Wait()
	}
}

func cpuOf(t *testing.T, pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100 // USER_HZ
}

func rssOf(t *testing.T, pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024
		}
	}
	return 0
}
