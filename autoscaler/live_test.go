package autoscaler_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/autoscaler"
	"seaway.dev/seaway/kube"
)

// The live tests run the role against etcd, kube-apiserver and kube-controller-manager as the lab builds them: one binary
// that is each by its first argument. What a kubelet would do is played.
var (
	liveTests  = flag.Bool("live", false, "play the role on a real API server: `go test ./autoscaler -run TestRole -v -args -live`")
	kubeBinary = flag.String("kube", "", "binary that is etcd and kube-apiserver by its first argument; without it the newest in the lab's cache")
	roleConfig = flag.String("be-role", "", "be the role, with this kubeconfig (for the live tests, which start themselves)")
	roleProm   = flag.String("be-prometheus", "", "the role's Prometheus")
	roleKEDA   = flag.String("be-keda", "", "the role's address for KEDA")
)

// TestBeRole is a process of the role, when a live test starts one.
func TestBeRole(t *testing.T) {
	if *roleConfig == "" {
		t.Skip("for the live tests, which start it")
	}
	conf, err := clientcmd.BuildConfigFromFlags("", *roleConfig)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	if err := autoscaler.Run(ctx, autoscaler.Config{Kube: conf, Log: log, Prometheus: *roleProm, Metrics: "0", Health: "0", KEDA: *roleKEDA}); err != nil {
		t.Fatal(err)
	}
}

// live is an API server with its controllers.
type live struct {
	t      *testing.T
	binary string
	dir    string
	host   string
	config *rest.Config
	client client.Client
	typed  kubernetes.Interface
	delay  func() time.Duration // of a pod's start
}

func findKube(t *testing.T) string {
	t.Helper()
	if *kubeBinary != "" {
		return *kubeBinary
	}
	if cache, err := os.UserCacheDir(); err == nil {
		if found, _ := filepath.Glob(filepath.Join(cache, "seaway-lab", "bin", "kubeall-*", "kubeall")); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	t.Skip("SKIPPED: no kube-apiserver at hand; build one with `seaway-lab setup`, or name one with -kube")
	return ""
}

const audit = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Request, verbs: [update, patch], resources: [{group: apps, resources: [deployments/scale]}]}
- {level: None}
`

// newLive starts everything, and ends it with the test.
func newLive(t *testing.T) *live {
	l := &live{t: t, binary: findKube(t), dir: t.TempDir(), delay: func() time.Duration { return 0 }}
	write := func(name, text string) string {
		path := filepath.Join(l.dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	peer, listen, port, kcm := freePort(t), freePort(t), freePort(t), freePort(t)
	l.start("etcd", "etcd", "--data-dir", filepath.Join(l.dir, "etcd"), "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", "http://"+listen, "--advertise-client-urls", "http://"+listen, "--listen-peer-urls", "http://"+peer,
		"--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "default=http://"+peer)
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	der, _ := x509.MarshalECPrivateKey(key)
	sa := write("sa.key", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
	role := "system:serviceaccount:seaway-system:seaway-autoscaler"
	tokens := write("tokens.csv", "admin,admin,admin,system:masters\none,"+role+",one,system:serviceaccounts\ntwo,"+role+",two,system:serviceaccounts\n")
	_, apiPort, _ := net.SplitHostPort(port)
	l.host = "https://" + port
	l.start("kube-apiserver", "kube-apiserver", "--etcd-servers=http://"+listen, "--secure-port="+apiPort, "--bind-address=127.0.0.1",
		"--cert-dir="+l.dir, "--token-auth-file="+tokens, "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16",
		"--service-account-issuer=https://live", "--service-account-key-file="+sa, "--service-account-signing-key-file="+sa,
		"--disable-admission-plugins=ServiceAccount,TaintNodesByCondition", "--profiling=false", "--v=0",
		"--audit-policy-file="+write("audit.yaml", audit), "--audit-log-path="+filepath.Join(l.dir, "audit.log"), "--audit-log-mode=blocking")
	l.config = l.as("admin")
	var err error
	if l.typed, err = kubernetes.NewForConfig(l.config); err != nil {
		t.Fatal(err)
	}
	l.eventually(time.Minute, "the API server is ready", func(ctx context.Context) error {
		return l.typed.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
	if l.client, err = client.New(l.config, client.Options{Scheme: kube.Scheme()}); err != nil {
		t.Fatal(err)
	}
	_, kcmPort, _ := net.SplitHostPort(kcm)
	l.start("kube-controller-manager", "kube-controller-manager", "--kubeconfig="+l.kubeconfig("admin"), "--leader-elect=false", "--bind-address=127.0.0.1",
		"--secure-port="+kcmPort, "--controllers=deployment-controller,replicaset-controller,horizontal-pod-autoscaler-controller",
		"--horizontal-pod-autoscaler-sync-period=2s", "--v=0")
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() { l.kubelet(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return l
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (l *live) start(name string, args ...string) *exec.Cmd { return l.run(name, l.binary, args...) }

// run starts a program that ends with the test, and tells what it said if that fails.
func (l *live) run(name, program string, args ...string) *exec.Cmd {
	l.t.Helper()
	log, err := os.CreateTemp(l.dir, name+"-*.log")
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if l.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			l.t.Logf("%s said:\n%s", name, text[max(0, len(text)-3000):])
		}
	})
	return cmd
}

func (l *live) as(token string) *rest.Config {
	return &rest.Config{Host: l.host, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: -1}
}

func (l *live) kubeconfig(token string) string {
	c := clientcmdapi.NewConfig()
	c.Clusters["c"] = &clientcmdapi.Cluster{Server: l.host, InsecureSkipTLSVerify: true}
	c.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: token}
	c.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	c.CurrentContext = "x"
	path := filepath.Join(l.dir, token+".kubeconfig")
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		l.t.Fatal(err)
	}
	return path
}

// role starts a process of the role, with one of its two tokens.
func (l *live) role(token, prometheus, keda string) *exec.Cmd {
	l.t.Helper()
	return l.run("role-"+token, os.Args[0], "-test.run=^TestBeRole$", "-be-role="+l.kubeconfig(token), "-be-prometheus="+prometheus, "-be-keda="+keda)
}

func (l *live) create(objects ...client.Object) {
	l.t.Helper()
	for _, o := range objects {
		if err := l.client.Create(l.t.Context(), o); err != nil && !apierrors.IsAlreadyExists(err) {
			l.t.Fatalf("create %s: %v", o.GetName(), err)
		}
	}
}

// eventually waits until f finds nothing amiss.
func (l *live) eventually(limit time.Duration, what string, f func(context.Context) error) {
	limit *= 4 // of a busy machine
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), limit)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			l.t.Fatalf("not within %s: %s: %v", limit, what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// kubelet binds pods to the one node, makes them ready after their delay, and lets those go that are to go.
func (l *live) kubelet(ctx context.Context) {
	due := map[string]time.Time{}
	for ctx.Err() == nil {
		var pods corev1.PodList
		if err := l.client.List(ctx, &pods); err == nil {
			for i := range pods.Items {
				l.nurse(ctx, &pods.Items[i], due)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (l *live) nurse(ctx context.Context, p *corev1.Pod, due map[string]time.Time) {
	now := metav1.Now()
	key := string(p.UID)
	switch {
	case p.DeletionTimestamp != nil:
		_ = l.client.Delete(ctx, p, client.GracePeriodSeconds(0))
	case p.Spec.NodeName == "":
		due[key] = now.Add(l.delay())
		_ = l.typed.CoreV1().Pods(p.Namespace).Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace}, Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}, metav1.CreateOptions{})
	case p.Status.Phase != corev1.PodRunning && !now.Time.Before(due[key]):
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: p.CreationTimestamp},
			{Type: corev1.ContainersReady, Status: corev1.ConditionTrue, LastTransitionTime: now}, {Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}}
		_ = l.client.Status().Update(ctx, p)
	}
}

// fault says what is wrong, if anything is.
func fault(bad bool, format string, args ...any) error {
	if !bad {
		return nil
	}
	return fmt.Errorf(format, args...)
}
