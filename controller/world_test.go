package controller_test

import (
	"bufio"
	"bytes"
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
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcscrd "sigs.k8s.io/mcs-api/config/crd"
	"sigs.k8s.io/yaml"

	"seaway.dev/seaway/api/v1alpha1"
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
	t.Skip("SKIPPED: no kube-apiserver at hand; build one with `seaway-lab setup`, or name one with -kube")
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
