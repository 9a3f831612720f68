// Package autoscale puts a web service of known capacity, load and Debian's Prometheus on a cluster of the lab, for the
// stories of the autoscaler and for `make autoscale`, where the real HPA and Seaway drive the same Deployment.
package autoscale

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/e2e/autoscale/lesson"
	"seaway.dev/seaway/e2e/stage"
	"seaway.dev/seaway/kube"
	"seaway.dev/seaway/scale"
)

// Where things are on the cluster.
const (
	Namespace = "shop"
	Target    = "web"
	vip       = "10.96.77.80" // of the service, so that the load asks no name server each time
)

// Known of the service: two workers for 100 ms each are 20 requests a second and pod, which use all the CPU it requests.
// A request's cost is more than its connection takes by itself, also on a busy machine, where that was 1.9 ms.
const (
	PerPod   = 20
	Cost     = 2 * time.Millisecond
	PodCores = 0.04
	late     = 400 * time.Millisecond
)

// Queries are what an Autoscaler of the service asks Prometheus.
var queries = struct{ rate, busy, bad string }{
	"sum(rate(web_requests_total[3s]))", "sum(rate(process_cpu_seconds_total[5s]))", "sum(rate(web_bad_requests_total[5s]))",
}

// Site is the service on one cluster.
type Site struct {
	Cluster string
	Start   time.Duration // from a pod's first process until it is ready
	Node    string        // address of the node with Prometheus and the load
	Client  client.Client
	stage   *stage.Stage
	prom    promv1.API
	rest    rest.Interface
	image   string
}

// Place puts everything on a cluster and waits until it works. The namespace must be there, and the image in the nodes
// (Image). With a provider the service's pods need room, which it sells.
func Place(ctx context.Context, s *stage.Stage, image, cluster string, start time.Duration, provider *Provider) (*Site, error) {
	site := &Site{Cluster: cluster, Start: start, stage: s, image: image}
	l, err := s.Layout(ctx)
	if err != nil {
		return nil, err
	}
	c, err := l.Cluster(cluster)
	if err != nil {
		return nil, err
	}
	site.Node = c.IPs[c.Nodes[0]].String()
	path, err := s.Kubeconfig(ctx, cluster)
	if err != nil {
		return nil, err
	}
	conf, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, err
	}
	if site.Client, err = client.New(conf, client.Options{Scheme: kube.Scheme()}); err != nil {
		return nil, err
	}
	typed, err := kubernetes.NewForConfig(conf)
	if err != nil {
		return nil, err
	}
	site.rest = typed.CoreV1().RESTClient()
	pc, err := api.NewClient(api.Config{Address: site.Prometheus()})
	if err != nil {
		return nil, err
	}
	site.prom = promv1.NewAPI(pc)
	rooms := ""
	if provider != nil {
		if err := provider.Begin(ctx, site); err != nil {
			return nil, err
		}
		rooms = ", " + room + `: "1"`
	}
	if _, err := s.Apply(ctx, cluster, site.manifest(c.Nodes[0], rooms)); err != nil {
		return nil, err
	}
	return site, site.working(ctx)
}

// Remove takes the autoscaler away from a cluster, if there is one. What is in the service's namespace goes with that.
func Remove(ctx context.Context, s *stage.Stage, cluster string) error {
	out, err := s.Kubectl(ctx, cluster, "get", "crd", "autoscalers.seaway.dev", "--ignore-not-found", "-o", "name")
	if err != nil || strings.TrimSpace(out) == "" {
		return err
	}
	if _, err := s.Kubectl(ctx, cluster, "delete", "autoscalers.seaway.dev", "-A", "--all", "--timeout=30s"); err != nil {
		return err
	}
	_, err = s.Seawayctl(ctx, cluster, "uninstall", "autoscaler")
	return err
}

// Image puts Debian's Prometheus and the service's program into the nodes of clusters.
func Image(ctx context.Context, s *stage.Stage, clusters ...string) (string, error) {
	root, err := s.Debian(ctx, "prometheus")
	if err != nil {
		return "", err
	}
	web, err := s.Program(ctx, "./e2e/autoscale/web", "web")
	if err != nil {
		return "", err
	}
	return s.EnsureImage(ctx, stage.RootImage{Name: "seaway-web", Only: clusters, Files: map[string]string{"/etc/prometheus.yml": scrape},
		Add: map[string]string{"/bin/web": web, "/bin/prometheus": filepath.Join(root, "usr", "bin", "prometheus")}})
}

const scrape = `global: {scrape_interval: 1s, scrape_timeout: 900ms}
scrape_configs:
- job_name: web
  dns_sd_configs: [{names: [web-pods.shop.svc.cluster.local], type: A, port: 8080, refresh_interval: 1s}]
`

// Prometheus is its URL, from the host and from pods.
func (s *Site) Prometheus() string { return "http://" + s.Node + ":9090" }

func (s *Site) manifest(node, rooms string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: %[1]s, selector: {app: web}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-pods, namespace: shop}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 6
      containers:
      - name: web
        image: %[2]q
        imagePullPolicy: Never
        command: [/bin/web, serve, -workers, "2", -time, 100ms, -cost, %[7]s, -late, %[6]s, -after, %[3]s]
        resources: {requests: {cpu: "%[8]g", memory: 32Mi%[5]s}, limits: {memory: 128Mi%[5]s}}
        readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1, timeoutSeconds: 3}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: prometheus, namespace: shop}
spec:
  selector: {matchLabels: {app: prometheus}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {app: prometheus}}
    spec: {hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet, nodeName: %[4]s, terminationGracePeriodSeconds: 1, containers: [
      {name: prometheus, image: %[2]q, imagePullPolicy: Never, command: [/bin/prometheus, --config.file=/etc/prometheus.yml, --storage.tsdb.path=/data, --query.lookback-delta=10s, "--web.listen-address=0.0.0.0:9090", --log.level=warn],
       volumeMounts: [{name: data, mountPath: /data}]}], volumes: [{name: data, emptyDir: {}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: load, namespace: shop, labels: {app: load}}
spec: {hostNetwork: true, nodeName: %[4]s, terminationGracePeriodSeconds: 1, containers: [
  {name: load, image: %[2]q, imagePullPolicy: Never, command: [/bin/web, load, -late, %[6]s, -url, "http://%[1]s:8080/"]}]}
`, vip, s.image, s.Start, node, rooms, late, Cost, PodCores)
}

// working waits until requests arrive and Prometheus tells of them.
func (s *Site) working(ctx context.Context) error {
	return stage.Await(ctx, 90*time.Second, func() error {
		if err := s.Rate(ctx, 2*PerPod); err != nil {
			return err
		}
		v, err := s.Metric(ctx, queries.rate)
		if err == nil && !(v > 1.5*PerPod) {
			err = fmt.Errorf("Prometheus sees %g requests a second of %d", v, 2*PerPod)
		}
		return err
	})
}

// Rate sets the load, in requests per second.
func (s *Site) Rate(ctx context.Context, rps float64) error {
	_, err := s.ask(ctx, fmt.Sprintf("http://%s:9200/rate?rps=%g", s.Node, rps))
	return err
}

func (s *Site) ask(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, b)
	}
	return b, err
}

// Tally is what came of the load so far, as e2e/autoscale/web tells it.
type Tally struct {
	Rate                        float64
	Sent, Late, Failed, Skipped int
	Millis                      map[string]int
}

// Tally asks for it.
func (s *Site) Tally(ctx context.Context) (t Tally, err error) {
	b, err := s.ask(ctx, (&url.URL{Scheme: "http", Host: s.Node + ":9200", Path: "/tally"}).String())
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	return t, err
}

// Metric asks Prometheus for one number; NaN is none.
func (s *Site) Metric(ctx context.Context, query string) (float64, error) {
	v, _, err := s.prom.Query(ctx, query, time.Time{})
	if err != nil {
		return math.NaN(), err
	}
	if list, ok := v.(model.Vector); ok && len(list) == 1 {
		return float64(list[0].Value), nil
	}
	return math.NaN(), nil
}

// Replicas is what the Deployment is told to have, and how many pods are ready.
func (s *Site) Replicas(ctx context.Context) (want, ready int, err error) {
	d := &appsv1.Deployment{}
	err = s.Client.Get(ctx, client.ObjectKey{Namespace: Namespace, Name: Target}, d)
	if err == nil {
		want, ready = int(*d.Spec.Replicas), int(d.Status.ReadyReplicas)
	}
	return want, ready, err
}

// Teach makes an Autoscaler whose role has learnt of this service already: two hours of it in arithmetic (lesson).
func (s *Site) Teach(ctx context.Context, as *v1alpha1.Autoscaler) error {
	state, err := lesson.Learn(lesson.Service{Cores: PodCores, Cost: Cost, Start: s.Start + time.Second, Image: s.image, Rate: 2 * PerPod, Seed: 1,
		Terms: scale.Terms{Min: int(max(as.Spec.Min, 1)), Max: int(as.Spec.Max), Good: 0.999}}, time.Now(), 2*time.Hour)
	if err != nil {
		return err
	}
	spec, err := json.Marshal(as.Spec)
	if err != nil {
		return err
	}
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: stage.SystemNamespace, Name: "autoscaler-" + as.Namespace + "." + as.Name, Labels: map[string]string{"seaway.dev/autoscaler-memory": "true"}},
		BinaryData: map[string][]byte{"state": state}, Data: map[string]string{"spec": string(spec), "owner": as.Namespace + "/" + as.Name}}
	if err := s.Client.Create(ctx, cm); err != nil {
		return fmt.Errorf("what is learnt: %w", err)
	}
	if err := s.Client.Create(ctx, as); err != nil {
		return fmt.Errorf("the Autoscaler: %w", err)
	}
	return nil
}

// Autoscaler is one for the service.
func Autoscaler(mode v1alpha1.AutoscalerMode, most int32) *v1alpha1.Autoscaler {
	return &v1alpha1.Autoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: Target}, Spec: v1alpha1.AutoscalerSpec{
		Target: v1alpha1.ScaleTarget{APIVersion: "apps/v1", Kind: "Deployment", Name: Target}, Min: 2, Max: most, Mode: mode, Trusted: true,
		Objective: v1alpha1.Objective{Good: "99.9", Latency: &metav1.Duration{Duration: late}},
		Metrics:   v1alpha1.MetricSource{Rate: queries.rate, Busy: queries.busy, Bad: queries.bad}}}
}

// Jumped is what came of a jump of the load.
type Jumped struct {
	From, To int           // replicas
	Metric   time.Duration // from the load to the metric's change
	Scale    time.Duration // from the metric to the scale
}

// Jump sets the load and waits until more replicas are asked for because of it, of the Deployment at a site, this one or
// another: after the metric has changed by more than chance makes it change (three standard deviations of what arrives in
// a second).
func (s *Site) Jump(ctx context.Context, rps float64, at *Site, limit time.Duration) (j Jumped, err error) {
	before, err := s.Metric(ctx, queries.rate)
	if err != nil {
		return j, err
	}
	if j.From, _, err = at.Replicas(ctx); err != nil {
		return j, err
	}
	begun := time.Now()
	if err := s.Rate(ctx, rps); err != nil {
		return j, err
	}
	var seen time.Time
	for time.Since(begun) < limit {
		if seen.IsZero() {
			if v, err := s.Metric(ctx, queries.rate); err == nil && v > before+3*math.Sqrt(before) {
				seen = time.Now()
			}
		}
		if j.To, _, err = at.Replicas(ctx); err != nil {
			return j, err
		}
		if seen.IsZero() {
			j.From = j.To // whatever moved it, it was not this
		}
		if j.To > j.From {
			j.Metric, j.Scale = seen.Sub(begun), time.Since(seen)
			return j, nil
		}
		select {
		case <-ctx.Done():
			return j, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return j, fmt.Errorf("%s still has %d replicas %s after the load of %s became %g a second", at.Cluster, j.From, limit, s.Cluster, rps)
}
