package controller_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcscrd "sigs.k8s.io/mcs-api/config/crd"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	"sigs.k8s.io/yaml"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/controller"
	crds "seaway.dev/seaway/deploy/crds"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/kube"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// The API servers of the live tests: one binary that is etcd, kube-apiserver and the rest by its first argument, as
// the lab builds it.
var kubeBinary = flag.String("kube", "", "binary that is etcd and kube-apiserver by its first argument; without it the newest in the lab's cache")

// findKube skips the test, loudly, when there is no API server to be had.
func findKube(t *testing.T) string {
	t.Helper()
	if *kubeBinary != "" {
		return *kubeBinary
	}
	cache, err := os.UserCacheDir()
	if err == nil {
		found, _ := filepath.Glob(filepath.Join(cache, "seaway-lab", "bin", "kubeall-*", "kubeall"))
		if len(found) > 0 {
			return found[len(found)-1]
		}
	}
	t.Skip("SKIPPED: no kube-apiserver at hand; build one with the lab (make lab), or name one with -kube")
	return ""
}

// world is a hub and members, each an API server of its own on one etcd.
type world struct {
	t      *testing.T
	binary string
	dir    string
	etcd   string
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, binary: findKube(t), dir: t.TempDir()}
	peer, listen := freePort(t), freePort(t)
	w.etcd = "http://" + listen
	w.start("etcd", "etcd", "--data-dir", filepath.Join(w.dir, "etcd"), "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", w.etcd, "--advertise-client-urls", w.etcd, "--listen-peer-urls", "http://"+peer,
		"--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "default=http://"+peer)
	return w
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (w *world) start(name string, args ...string) *exec.Cmd {
	log, err := os.Create(filepath.Join(w.dir, name+".log"))
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(w.binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if w.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			w.t.Logf("%s said:\n%s", name, text[max(0, len(text)-2000):])
		}
	})
	return cmd
}

// cluster is one API server.
type cluster struct {
	t      *testing.T // of the part that plays
	w      *world
	name   string
	config *rest.Config
	client client.Client
	typed  kubernetes.Interface
	args   []string
	proc   *exec.Cmd
}

func (w *world) cluster(name string) *cluster {
	dir := filepath.Join(w.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	der, _ := x509.MarshalECPrivateKey(key)
	keyFile := filepath.Join(dir, "sa.key")
	os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
	tokens := filepath.Join(dir, "tokens.csv")
	os.WriteFile(tokens, []byte("admin,admin,admin,system:masters\n"), 0o600)
	_, port, _ := net.SplitHostPort(freePort(w.t))
	c := &cluster{t: w.t, w: w, name: name, args: []string{"kube-apiserver",
		"--etcd-servers=" + w.etcd, "--etcd-prefix=/" + name, "--secure-port=" + port, "--bind-address=127.0.0.1", "--cert-dir=" + dir,
		"--token-auth-file=" + tokens, "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16",
		"--service-account-issuer=https://" + name, "--service-account-key-file=" + keyFile, "--service-account-signing-key-file=" + keyFile,
		"--disable-admission-plugins=ServiceAccount,TaintNodesByCondition", "--profiling=false", "--v=0"}}
	c.proc = w.start(name, c.args...)
	c.config = &rest.Config{Host: "https://127.0.0.1:" + port, BearerToken: "admin", TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: -1}
	var err error
	if c.typed, err = kubernetes.NewForConfig(c.config); err != nil {
		w.t.Fatal(err)
	}
	c.ready()
	if c.client, err = client.New(c.config, client.Options{Scheme: kube.Scheme()}); err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (c *cluster) ready() {
	eventually(c.t, time.Minute, c.name+"'s API server is ready", func(ctx context.Context) error {
		return c.typed.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// stop and restart take the API server away and bring it back.
func (c *cluster) stop() {
	_ = c.proc.Process.Kill()
	_ = c.proc.Wait()
}

func (c *cluster) restart() {
	c.proc = c.w.start(c.name, c.args...)
	c.ready()
}

func (c *cluster) create(objects ...client.Object) {
	c.t.Helper()
	for _, o := range objects {
		status := o.DeepCopyObject().(client.Object)
		if err := c.client.Create(c.t.Context(), o); err != nil {
			c.t.Fatalf("%s: create %s: %v", c.name, o.GetName(), err)
		}
		switch s := status.(type) {
		case *corev1.Pod:
			o.(*corev1.Pod).Status = s.Status
		case *corev1.Node:
			o.(*corev1.Node).Status = s.Status
		case *v1alpha1.Slice:
			o.(*v1alpha1.Slice).Status = s.Status
		default:
			continue
		}
		if err := c.client.Status().Update(c.t.Context(), o); err != nil {
			c.t.Fatalf("%s: status of %s: %v", c.name, o.GetName(), err)
		}
	}
}

func (c *cluster) define(texts ...[]byte) {
	for _, text := range texts {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.Unmarshal(text, crd); err != nil {
			c.t.Fatal(err)
		}
		c.create(crd)
		eventually(c.t, 30*time.Second, crd.Name+" is served", func(ctx context.Context) error {
			got := &apiextensionsv1.CustomResourceDefinition{}
			if err := c.client.Get(ctx, client.ObjectKeyFromObject(crd), got); err != nil {
				return err
			}
			for _, cond := range got.Status.Conditions {
				if cond.Type == apiextensionsv1.Established && cond.Status == apiextensionsv1.ConditionTrue {
					return nil
				}
			}
			return fmt.Errorf("not established")
		})
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, limit time.Duration, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var err error
	for {
		if err = check(ctx); err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %s: %s: %v", limit, what, err)
		case <-tick.C:
		}
	}
}

func ns(name string, kv ...string) *corev1.Namespace {
	o := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	for i := 0; i+1 < len(kv); i += 2 {
		o.Labels[kv[i]] = kv[i+1]
	}
	return o
}

func node(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
}

func pod(namespace, name, node, owner string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": strings.Split(name, "-")[0]}},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i",
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.244.0.9", PodIPs: []corev1.PodIP{{IP: "10.244.0.9"}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	if owner != "" {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: owner, Name: "o", UID: "o", Controller: &yes}}
	}
	return p
}

// agent plays a node's agent over the real streams: it makes keys, attaches what it is told to, and reports.
type agent struct {
	t    *testing.T
	name string
	seed byte
	port uint16
	http *http.Client
	url  string
	auth string

	mu     sync.Mutex
	intent *fleet.Intent
	silent bool
}

// agent starts one on a node, with a token bound to a pod there, as the kubelet would give it.
func (c *cluster) agent(node, url string, seed byte) *agent {
	t := c.t
	p := pod("seaway-system", "agent-"+node, node, "")
	p.Spec.ServiceAccountName = "seaway-agent"
	c.create(p)
	seconds := int64(3600)
	tr, err := c.typed.CoreV1().ServiceAccounts("seaway-system").CreateToken(t.Context(), "seaway-agent", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{controller.Audience}, ExpirationSeconds: &seconds,
			BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: p.Name, UID: p.UID}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	eventually(t, 30*time.Second, "the authority is published", func(ctx context.Context) error {
		cm := &corev1.ConfigMap{}
		err := c.client.Get(ctx, client.ObjectKey{Namespace: "seaway-system", Name: controller.AuthorityMap}, cm)
		if err == nil && !pool.AppendCertsFromPEM([]byte(cm.Data[controller.AuthorityKey])) {
			err = fmt.Errorf("no certificate in it")
		}
		return err
	})
	a := &agent{t: t, name: node, seed: seed, url: url, auth: "Bearer " + tr.Status.Token, port: 51871,
		http: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "seaway-controller.seaway-system.svc"}}}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			a.listen(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	t.Cleanup(func() { cancel(); a.http.CloseIdleConnections(); wg.Wait() })
	return a
}

func (a *agent) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	return a.doAs(ctx, a.auth, method, path, body)
}

func (a *agent) doAs(ctx context.Context, auth, method, path string, body []byte) (*http.Response, error) {
	a.mu.Lock()
	url := a.url
	a.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, method, url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", auth)
	return a.http.Do(req)
}

func (a *agent) dial(url string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.url = url
}

func (a *agent) listen(ctx context.Context) {
	resp, err := a.do(ctx, http.MethodGet, "/v1/intent?node="+a.name, nil)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		text, _ := io.ReadAll(resp.Body)
		a.t.Logf("agent %s: %s %s", a.name, resp.Status, text)
		return
	}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if len(lines.Bytes()) == 0 {
			continue
		}
		in := new(fleet.Intent)
		if err := json.Unmarshal(lines.Bytes(), in); err != nil {
			a.t.Errorf("agent %s: %v", a.name, err)
			return
		}
		a.mu.Lock()
		a.intent = in
		silent := a.silent
		a.mu.Unlock()
		if !silent {
			a.tell(ctx, in)
		}
	}
}

// tell reports that all of an intent is done.
func (a *agent) tell(ctx context.Context, in *fleet.Intent) {
	rep := fleet.Report{Version: 1, Node: a.name, IntentRev: in.Rev, Port: a.port, MTU: 1500,
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, a.seed})}, Driver: "userspace", Purged: in.Purge,
		Keys: map[string]fleet.Key{fleet.ManagementSlice: {a.seed}}}
	if in.Purge {
		rep.Keys = nil
	}
	for _, s := range in.Slices {
		var k fleet.Key
		copy(k[:], s.Name)
		k[31] = a.seed
		rep.Keys[s.Name] = k
	}
	for _, p := range in.Pods {
		if p.Cluster == in.Cluster && p.Node == a.name {
			rep.Attachments = append(rep.Attachments, fleet.Attachment{PodUID: p.UID, Namespace: p.Namespace, Pod: p.Name, Slice: p.Slice,
				Attached: true, Reason: "Attached", Message: "ok"})
		}
	}
	body, _ := json.Marshal(rep)
	if resp, err := a.do(ctx, http.MethodPost, "/v1/report?node="+a.name, body); err == nil {
		if resp.StatusCode != http.StatusNoContent {
			text, _ := io.ReadAll(resp.Body)
			a.t.Errorf("agent %s: report: %s %s", a.name, resp.Status, text)
		}
		resp.Body.Close()
	}
}

// told waits for an intent that is as wanted.
func (a *agent) told(what string, want func(*fleet.Intent) error) *fleet.Intent {
	a.t.Helper()
	var got *fleet.Intent
	eventually(a.t, 15*time.Second, "node "+a.name+" is told "+what, func(context.Context) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if got = a.intent; got == nil {
			return fmt.Errorf("nothing yet")
		}
		return want(got)
	})
	return got
}

// replica is one running controller.
type replica struct {
	url  string
	stop func()
}

// run starts a controller of a member.
func (c *cluster) run(hub *cluster, podName string) *replica {
	t := c.t
	if err := client.IgnoreAlreadyExists(c.client.Create(t.Context(), pod("seaway-system", podName, "n1", ""))); err != nil {
		t.Fatal(err)
	}
	listen := freePort(t)
	level := slog.LevelInfo
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(testWriter{c.w.t}, &slog.HandlerOptions{Level: level})).With("cluster", c.name, "pod", podName)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := controller.Run(ctx, controller.Config{
			Cluster: c.name, Pod: podName, Software: "test", Member: c.config, Listen: listen, Metrics: "0", Health: "0", Rest: 2 * time.Second,
			Hub: func(context.Context) (*rest.Config, error) { return hub.config, nil }, Log: log,
		})
		if err != nil && ctx.Err() == nil {
			t.Errorf("controller of %s: %v", c.name, err)
		}
	}()
	var once sync.Once
	r := &replica{url: "https://" + listen, stop: func() { once.Do(func() { cancel(); <-done }) }}
	c.w.t.Cleanup(r.stop)
	return r
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Helper()
	if w.t.Context().Err() == nil {
		w.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

// enrol makes a member as the hub would: its Cluster, its mailbox.
func (h *cluster) enrol(name string, private bool) {
	h.create(&v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.ClusterSpec{Private: private}}, ns("seaway-"+name),
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "seaway-" + name, Name: "bulletin"}},
		&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "seaway-" + name, Name: "alive"}})
}

func (h *cluster) slice(name string, prefixes []v1alpha1.CIDR, names []string, rows ...v1alpha1.SliceCluster) {
	h.create(&v1alpha1.Slice{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:   v1alpha1.SliceSpec{Prefixes: prefixes, Namespaces: v1alpha1.Namespaces{Names: names}},
		Status: v1alpha1.SliceStatus{Clusters: rows}})
}

// liveFleet is a hub, c1 and c2 (private) with nodes n1 and n2 each, joined, with their controllers and agents.
type liveFleet struct {
	hub, c1, c2 *cluster
	r1          *replica // c1's leading controller
	agents      map[string]*agent
}

// TestLive plays one fleet's life on real API servers, each part in namespaces and slices of its own.
func TestLive(t *testing.T) {
	f := newLiveFleet(t)
	for _, part := range []struct {
		name string
		play func(*testing.T, *liveFleet)
	}{
		{"first slice", liveFirstSlice}, {"exhaustion", liveExhaustion}, {"services", liveServices},
		{"hub away", liveHubAway}, {"leave", liveLeave},
	} {
		t.Run(part.name, func(t *testing.T) {
			for _, c := range []*cluster{f.hub, f.c1, f.c2} {
				c.t = t
			}
			for _, a := range f.agents {
				a.t = t
			}
			part.play(t, f)
		})
		if t.Failed() {
			return
		}
	}
}

func newLiveFleet(t *testing.T) *liveFleet {
	w := newWorld(t)
	f := &liveFleet{hub: w.cluster("hub"), c1: w.cluster("c1"), c2: w.cluster("c2"), agents: map[string]*agent{}}
	hub, c1, c2 := f.hub, f.c1, f.c2
	hub.define(crds.Clusters, crds.Slices)
	hub.enrol("c1", false)
	hub.enrol("c2", true)
	for i, c := range []*cluster{c1, c2} {
		c.define(mcscrd.ServiceExportCRD, mcscrd.ServiceImportCRD)
		c.create(ns("seaway-system"), ns("shop"), ns("jam"), ns("store"), ns("away"), node("n1"), node("n2"),
			&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "seaway-system", Name: "seaway-agent"}})
		r := c.run(hub, "controller-a")
		if i == 0 {
			f.r1 = r
		}
		for j, n := range []string{"n1", "n2"} {
			f.agents[c.name+"/"+n] = c.agent(n, r.url, byte(10*(i+1)+j))
		}
	}
	return f
}

func (c *cluster) addrOf(key string) (condition, addrs string) {
	namespace, name, _ := strings.Cut(key, "/")
	p := &corev1.Pod{}
	if err := c.client.Get(c.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, p); err != nil {
		return err.Error(), ""
	}
	for _, cond := range p.Status.Conditions {
		if cond.Type == "seaway.dev/attached" {
			condition = string(cond.Status) + " " + cond.Reason
		}
	}
	return condition, p.Annotations["seaway.dev/slice-ips"]
}

func (c *cluster) shows(key, condition, addrs string) {
	c.t.Helper()
	eventually(c.t, 15*time.Second, c.name+" "+key+" shows "+condition+" "+addrs, func(context.Context) error {
		gotC, gotA := c.addrOf(key)
		if gotC != condition || gotA != addrs {
			return fmt.Errorf("it shows %q %q", gotC, gotA)
		}
		return nil
	})
}

func liveFirstSlice(t *testing.T, f *liveFleet) {
	hub, c1, c2, agents := f.hub, f.c1, f.c2, f.agents
	c1.create(pod("shop", "web-0", "n1", "StatefulSet"), pod("shop", "client", "n2", ""))
	host := pod("shop", "host", "n2", "")
	host.Spec.HostNetwork = true
	host.Spec.Containers[0].Ports = nil
	c1.create(host)
	c2.create(pod("shop", "db", "n1", ""))
	began := time.Now()
	hub.slice("pay", []v1alpha1.CIDR{"10.77.0.0/16", "fd77::/48"}, []string{"shop"},
		v1alpha1.SliceCluster{Name: "c1", Blocks: []string{"10.77.0.0/24", "fd77::/64"}},
		v1alpha1.SliceCluster{Name: "c2", Blocks: []string{"10.77.1.0/24", "fd77:0:0:1::/64"}})

	c1.shows("shop/client", "True Attached", "10.77.0.1,fd77::1")
	c1.shows("shop/web-0", "True Attached", "10.77.0.2,fd77::2")
	c1.shows("shop/host", "False HostNetwork", "")
	c2.shows("shop/db", "True Attached", "10.77.1.0,fd77:0:0:1::")
	t.Logf("from the slice to all pods' conditions: %v", time.Since(began).Round(time.Millisecond))

	peer := func(id, slice string) func(*fleet.Intent) error {
		return func(in *fleet.Intent) error {
			for _, c := range in.Clusters {
				for _, n := range c.Nodes {
					if n.ID() == id && !n.Keys[slice].IsZero() {
						return nil
					}
				}
			}
			return fmt.Errorf("no key of %s on %s in %+v", id, slice, in.Clusters)
		}
	}
	in := agents["c1/n1"].told("of c2's pod", func(in *fleet.Intent) error {
		if len(in.Pods) != 3 {
			return fmt.Errorf("%d pods", len(in.Pods))
		}
		return peer("c2/n1", "pay")(in)
	})
	if len(in.Slices) != 1 || len(in.Slices[0].Blocks) != 4 || len(in.Slices[0].Namespaces) != 1 {
		t.Errorf("slices %+v", in.Slices)
	}
	agents["c2/n1"].told("of c1's gateways", peer("c1/n2", fleet.ManagementSlice))
	// c2/n2 hosts nothing: it is told of nobody but itself.
	idle := agents["c2/n2"].told("of itself", peer("c2/n2", fleet.ManagementSlice))
	if len(idle.Slices) != 0 || len(idle.Pods) != 0 || len(idle.Clusters) != 1 {
		t.Errorf("a node without pods is told of %+v %+v", idle.Slices, idle.Clusters)
	}

	t.Run("a new pod", func(t *testing.T) {
		began := time.Now()
		c1.create(pod("shop", "late", "n1", ""))
		agents["c1/n1"].told("of the new pod", func(in *fleet.Intent) error {
			if slices.ContainsFunc(in.Pods, func(p fleet.Pod) bool { return p.Name == "late" && len(p.Addrs) == 2 }) {
				return nil
			}
			return fmt.Errorf("not among %d pods", len(in.Pods))
		})
		t.Logf("from the pod to its node's intent: %v", time.Since(began).Round(time.Millisecond))
		agents["c2/n1"].told("of the new pod, in the other cluster", func(in *fleet.Intent) error {
			if slices.ContainsFunc(in.Pods, func(p fleet.Pod) bool { return p.Name == "late" }) {
				return nil
			}
			return fmt.Errorf("not among %d pods", len(in.Pods))
		})
		t.Logf("from the pod to the other cluster's node: %v", time.Since(began).Round(time.Millisecond))
	})

	t.Run("a StatefulSet's pod comes back on another node", func(t *testing.T) {
		old := &corev1.Pod{}
		old.Namespace, old.Name = "shop", "web-0"
		if err := c1.client.Delete(t.Context(), old, client.GracePeriodSeconds(0)); err != nil {
			t.Fatal(err)
		}
		c1.create(pod("shop", "web-0", "n2", "StatefulSet"))
		c1.shows("shop/web-0", "True Attached", "10.77.0.2,fd77::2")
	})

	t.Run("a NetworkPolicy", func(t *testing.T) {
		began := time.Now()
		c1.create(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db-only"}, Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{
				{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}}}}}}})
		agents["c1/n2"].told("of the policy, which names a pod of the other cluster", func(in *fleet.Intent) error {
			if len(in.Policies) == 1 && len(in.Policies[0].AllowIn) == 1 && fmt.Sprint(in.Policies[0].AllowIn[0].Peers) == "[10.77.1.0/32 fd77:0:0:1::/128]" {
				return nil
			}
			return fmt.Errorf("policies %+v", in.Policies)
		})
		t.Logf("from the policy to the node: %v", time.Since(began).Round(time.Millisecond))
	})

	t.Run("tokens", func(t *testing.T) { tokensAreChecked(t, c1, agents["c1/n1"]) })

	t.Run("another replica takes over", func(t *testing.T) {
		f.r1.stop()
		r := c1.run(hub, "controller-b")
		f.r1 = r
		for _, n := range []string{"n1", "n2"} {
			agents["c1/"+n].dial(r.url)
		}
		agents["c1/n1"].told("by the new leader", func(in *fleet.Intent) error {
			if len(in.Pods) != 4 {
				return fmt.Errorf("%d pods", len(in.Pods))
			}
			return peer("c2/n1", "pay")(in)
		})
		c1.shows("shop/web-0", "True Attached", "10.77.0.2,fd77::2")
		eventually(t, 10*time.Second, "the Service points at the new leader", func(ctx context.Context) error {
			var pods corev1.PodList
			if err := c1.client.List(ctx, &pods, client.MatchingLabels{controller.LeaderLabel: "true"}); err != nil {
				return err
			}
			if len(pods.Items) != 1 || pods.Items[0].Name != "controller-b" {
				return fmt.Errorf("%d pods are labelled", len(pods.Items))
			}
			return nil
		})
	})

	t.Run("status", func(t *testing.T) {
		eventually(t, 10*time.Second, "the status is whole", func(ctx context.Context) error {
			cm := &corev1.ConfigMap{}
			if err := c1.client.Get(ctx, client.ObjectKey{Namespace: "seaway-system", Name: controller.StatusMap}, cm); err != nil {
				return err
			}
			var st fleet.Status
			if err := json.Unmarshal([]byte(cm.Data["status"]), &st); err != nil {
				return err
			}
			if !st.Hub.Connected || len(st.Nodes) != 2 || !st.Nodes[0].Connected || len(st.Slices) != 1 || st.Slices[0].Attached != 3 || st.Slices[0].Remote != 1 || len(st.Members) != 1 {
				return fmt.Errorf("%s", cm.Data["status"])
			}
			return nil
		})
	})
}

// liveExhaustion fills a slice's block, sees the demand on the hub, and goes on when the hub adds one.
func liveExhaustion(t *testing.T, f *liveFleet) {
	hub, c1, agents := f.hub, f.c1, f.agents
	for i := range 5 {
		c1.create(pod("jam", fmt.Sprint("web-", i), "n1", ""))
	}
	hub.slice("jam", []v1alpha1.CIDR{"10.77.0.0/16"}, []string{"jam"}, v1alpha1.SliceCluster{Name: "c1", Blocks: []string{"10.77.0.0/30"}})
	count := func(n int) func(*fleet.Intent) error {
		return func(in *fleet.Intent) error {
			if len(on(in, "jam")) != n {
				return fmt.Errorf("%d pods", len(on(in, "jam")))
			}
			return nil
		}
	}
	agents["c1/n1"].told("of three pods", count(3))
	eventually(t, 10*time.Second, "two pods say why not", func(context.Context) error {
		n := 0
		for i := range 5 {
			if c, _ := c1.addrOf(fmt.Sprint("jam/web-", i)); c == "False AddressesExhausted" {
				n++
			}
		}
		if n != 2 {
			return fmt.Errorf("%d do", n)
		}
		return nil
	})
	eventually(t, 10*time.Second, "the hub hears the demand", func(ctx context.Context) error {
		cm := &corev1.ConfigMap{}
		if err := hub.client.Get(ctx, client.ObjectKey{Namespace: "seaway-c1", Name: "bulletin"}, cm); err != nil {
			return err
		}
		b, err := bulletin.Decode(cm.BinaryData["bulletin"])
		if err == nil && b.Demand["jam"] != 5 {
			err = fmt.Errorf("demand %v", b.Demand)
		}
		return err
	})
	s := &v1alpha1.Slice{}
	if err := hub.client.Get(t.Context(), client.ObjectKey{Name: "jam"}, s); err != nil {
		t.Fatal(err)
	}
	s.Status.Clusters[0].Blocks = append(s.Status.Clusters[0].Blocks, "10.77.9.0/30")
	if err := hub.client.Status().Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	agents["c1/n1"].told("of all five pods", count(5))
	shown := map[string]bool{}
	for i := range 5 {
		eventually(t, 10*time.Second, "all pods show their addresses", func(context.Context) error {
			c, a := c1.addrOf(fmt.Sprint("jam/web-", i))
			shown[a] = true
			if c != "True Attached" {
				return fmt.Errorf("web-%d shows %q", i, c)
			}
			return nil
		})
	}
	if delete(shown, ""); len(shown) != 5 {
		t.Errorf("addresses %v", shown)
	}
}

func tokensAreChecked(t *testing.T, c *cluster, a *agent) {
	ask := func(auth, path string) int {
		resp, err := a.doAs(t.Context(), auth, http.MethodPost, path, []byte(`{"version":1,"node":"n2"}`))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	other, err := c.typed.CoreV1().ServiceAccounts("seaway-system").CreateToken(t.Context(), "seaway-agent", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, auth string
		want       int
	}{
		{"none", "", 401}, {"made up", "Bearer x", 401}, {"another audience", "Bearer " + other.Status.Token, 401},
		{"another node's report", a.auth, 403},
	} {
		if got := ask(tc.auth, "/v1/report"); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
	resp, err := a.do(t.Context(), http.MethodGet, "/v1/intent?node=n2", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 403 {
		t.Errorf("another node's intent: %d, want 403", resp.StatusCode)
	}
}

func liveServices(t *testing.T, f *liveFleet) {
	hub, c1, c2, agents := f.hub, f.c1, f.c2, f.agents
	c1.create(pod("store", "web-0", "n1", ""))
	c2.create(pod("store", "client", "n1", ""))
	for _, c := range []*cluster{c1, c2} {
		c.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "store", Name: "web"}, Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080), Protocol: corev1.ProtocolTCP}}}})
	}
	ready, port, name, proto := true, int32(8080), "http", corev1.ProtocolTCP
	c1.create(&discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "store", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}}, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.0.9"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "store", Name: "web-0"}}},
		Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &proto}},
	}, &mcs.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: "store", Name: "web"}})
	hub.slice("goods", []v1alpha1.CIDR{"10.77.0.0/16"}, []string{"store"},
		v1alpha1.SliceCluster{Name: "c1", Blocks: []string{"10.77.0.0/24"}}, v1alpha1.SliceCluster{Name: "c2", Blocks: []string{"10.77.1.0/24"}})

	served := func(in *fleet.Intent) error {
		for _, s := range in.Services {
			if s.Key() == "store/web" && len(s.IPs) == 1 && len(s.Endpoints) == 1 && s.Endpoints[0].Ready {
				return nil
			}
		}
		return fmt.Errorf("services %+v", in.Services)
	}
	in := agents["c2/n1"].told("of c1's service", served)
	if ip := in.Services[0].IPs[0]; !netip.MustParsePrefix("10.77.1.0/24").Contains(ip) {
		t.Errorf("service address %v is not of c2's block", ip)
	}
	agents["c1/n2"].told("of its own service", served)
	eventually(t, 10*time.Second, "c2 has the ServiceImport", func(ctx context.Context) error {
		im := &mcs.ServiceImport{}
		if err := c2.client.Get(ctx, client.ObjectKey{Namespace: "store", Name: "web"}, im); err != nil {
			return err
		}
		if len(im.Spec.IPs) != 1 || im.Spec.IPs[0] != in.Services[0].IPs[0].String() {
			return fmt.Errorf("addresses %v", im.Spec.IPs)
		}
		return nil
	})

	t.Run("the pod is not ready", func(t *testing.T) {
		began := time.Now()
		eps := &discoveryv1.EndpointSlice{}
		_ = c1.client.Get(t.Context(), client.ObjectKey{Namespace: "store", Name: "web-1"}, eps)
		no := false
		eps.Endpoints[0].Conditions.Ready = &no
		if err := c1.client.Update(t.Context(), eps); err != nil {
			t.Fatal(err)
		}
		agents["c2/n1"].told("that it is not ready", func(in *fleet.Intent) error {
			if served(in) == nil {
				return fmt.Errorf("still ready")
			}
			return nil
		})
		t.Logf("from unready to the other cluster's node: %v", time.Since(began).Round(time.Millisecond))
	})

	t.Run("unexport", func(t *testing.T) {
		if err := c1.client.Delete(t.Context(), &mcs.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: "store", Name: "web"}}); err != nil {
			t.Fatal(err)
		}
		agents["c2/n1"].told("of no service", func(in *fleet.Intent) error {
			if len(in.Services) > 0 {
				return fmt.Errorf("services %+v", in.Services)
			}
			return nil
		})
	})
}

// liveHubAway takes the hub away, restarts a controller without it, and brings it back.
func liveHubAway(t *testing.T, f *liveFleet) {
	hub, c1, c2, agents := f.hub, f.c1, f.c2, f.agents
	c1.create(pod("away", "web-0", "n1", ""))
	c2.create(pod("away", "away-client", "n1", ""))
	hub.slice("away", []v1alpha1.CIDR{"10.77.0.0/16"}, []string{"away"},
		v1alpha1.SliceCluster{Name: "c1", Blocks: []string{"10.77.0.0/24"}}, v1alpha1.SliceCluster{Name: "c2", Blocks: []string{"10.77.1.0/24"}})
	whole := func(n int) func(*fleet.Intent) error {
		return func(in *fleet.Intent) error {
			peers := 0
			for _, c := range in.Clusters {
				for _, n := range c.Nodes {
					if !n.Keys["away"].IsZero() {
						peers++
					}
				}
			}
			if len(on(in, "away")) != n || peers != 2 {
				return fmt.Errorf("%d pods, %d keys", len(on(in, "away")), peers)
			}
			return nil
		}
	}
	agents["c1/n1"].told("of both pods", whole(2))
	eventually(t, 20*time.Second, "the fleet is remembered", func(ctx context.Context) error {
		cm := &corev1.ConfigMap{}
		if err := c1.client.Get(ctx, client.ObjectKey{Namespace: "seaway-system", Name: controller.MemoryMap}, cm); err != nil {
			return err
		}
		b, err := gunzip(cm.BinaryData["fleet"])
		if err == nil && !bytes.Contains(b, []byte(`"away-client"`)) {
			err = fmt.Errorf("c2's pod is not in it")
		}
		return err
	})
	hub.stop()
	c1.create(pod("away", "web-1", "n1", ""))
	agents["c1/n1"].told("of a new pod without the hub", whole(3))

	f.r1.stop()
	agents["c1/n1"].reset()
	began := time.Now()
	r := c1.run(hub, "controller-c")
	f.r1 = r
	agents["c1/n1"].dial(r.url)
	agents["c1/n2"].dial(r.url)
	first := agents["c1/n1"].told("anything by the new leader", func(*fleet.Intent) error { return nil })
	if err := whole(3)(first); err != nil {
		t.Errorf("the first intent of a leader without a hub: %v", err)
	}
	t.Logf("from the new replica's start to its first intent: %v", time.Since(began).Round(time.Millisecond))

	began = time.Now()
	hub.restart()
	t.Logf("the hub's API server took %v to start", time.Since(began).Round(time.Millisecond))
	began = time.Now()
	agents["c2/n1"].told("of the pod that came while the hub was away", whole(3))
	t.Logf("from the hub's return to the other cluster's node: %v", time.Since(began).Round(time.Millisecond))
}

// liveLeave has a cluster leave: nodes are told to purge, pods show nothing any more.
func liveLeave(t *testing.T, f *liveFleet) {
	c1, agents := f.c1, f.agents
	c1.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "seaway-system", Name: controller.SettingsMap}})
	c1.shows("shop/web-0", "True Attached", "10.77.0.2,fd77::2")
	p := &corev1.Pod{}
	if err := c1.client.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "web-0"}, p); err != nil {
		t.Fatal(err)
	}
	others := len(p.Status.Conditions) - 1
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "seaway-system", Name: controller.SettingsMap}, Data: map[string]string{"leaving": "true"}}
	if err := c1.client.Update(t.Context(), cm); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"n1", "n2"} {
		agents["c1/"+n].told("to purge", func(in *fleet.Intent) error {
			if !in.Purge || len(in.Slices)+len(in.Clusters)+len(in.Pods) > 0 {
				return fmt.Errorf("%+v", in)
			}
			return nil
		})
	}
	c1.shows("shop/web-0", "", "")
	if err := c1.client.Get(t.Context(), client.ObjectKeyFromObject(p), p); err != nil || len(p.Status.Conditions) != others {
		t.Errorf("other conditions: %d, want %d (%v)", len(p.Status.Conditions), others, err)
	}
	eventually(t, 10*time.Second, "the status says that all is gone", func(ctx context.Context) error {
		var st fleet.Status
		cm := &corev1.ConfigMap{}
		if err := c1.client.Get(ctx, client.ObjectKey{Namespace: "seaway-system", Name: controller.StatusMap}, cm); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(cm.Data["status"]), &st); err != nil {
			return err
		}
		if st.Purged != "2/2" {
			return fmt.Errorf("purged %q", st.Purged)
		}
		return nil
	})
	eventually(t, 10*time.Second, "no ledger is left", func(ctx context.Context) error {
		var list corev1.ConfigMapList
		if err := c1.client.List(ctx, &list, client.MatchingLabels{"seaway.dev/ledger": "true"}); err != nil {
			return err
		}
		if len(list.Items) > 0 {
			return fmt.Errorf("%d ledgers", len(list.Items))
		}
		return nil
	})
}

func gunzip(b []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// reset forgets what the agent was told.
func (a *agent) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.intent = nil
}

// on lists the pods of one slice.
func on(in *fleet.Intent, slice string) []fleet.Pod {
	return slices.DeleteFunc(slices.Clone(in.Pods), func(p fleet.Pod) bool { return p.Slice != slice })
}
