package etcd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"seaway.dev/seaway/e2e/logbook"
	"seaway.dev/seaway/e2e/stage"
)

const (
	namespace = "kv"
	app       = "etcd"
	slice     = "kv"
)

// Election is etcd's own time-out: a member that has not heard of its leader for one to two of these asks for votes.
const Election = time.Second

// Cluster is etcd over the lab's clusters, with clients in each.
type Cluster struct {
	stage    *stage.Stage
	tell     func(string, ...any)
	logs     *logbook.Folder
	clusters []string
	history  map[string][]operation // by log: c1 (linearizable reads), c1-stale
}

// New makes the members and the clients, and waits until all of them work.
func New(ctx context.Context, s *stage.Stage, clusters []string, tell func(string, ...any)) (*Cluster, error) {
	c := &Cluster{stage: s, tell: tell, clusters: clusters, history: map[string][]operation{}}
	image, err := c.image(ctx)
	if err != nil {
		return nil, err
	}
	if c.logs, err = logbook.New("etcd"); err != nil {
		return nil, err
	}
	err = stage.Each(clusters, func(name string) error {
		if _, err := s.Apply(ctx, name, c.manifest(image, name)); err != nil {
			return err
		}
		if _, err := s.Kubectl(ctx, name, "rollout", "status", "statefulset/"+app, "-n", namespace, "--timeout=90s"); err != nil {
			return err
		}
		_, err := s.Seawayctl(ctx, name, "export", app, "-n", namespace)
		return err
	})
	if err != nil {
		return c, err
	}
	return c, c.working(ctx)
}

// Close removes the clients' logs.
func (c *Cluster) Close() { c.logs.Remove() }

// image has Debian's etcd and the client.
func (c *Cluster) image(ctx context.Context) (string, error) {
	root, err := c.stage.Debian(ctx, "etcd-server")
	if err != nil {
		return "", err
	}
	client, err := c.stage.Program(ctx, "./e2e/etcd/client", "etcd-client")
	if err != nil {
		return "", err
	}
	return c.stage.EnsureImage(ctx, stage.RootImage{Name: "seaway-etcd", Add: map[string]string{
		"/bin/client": client, "/bin/etcd": filepath.Join(root, "usr", "bin", "etcd"),
	}})
}

func host(cluster string) string {
	return fmt.Sprintf("%s-0.%s.%s.%s.svc.clusterset.local", app, cluster, app, namespace)
}

// members lists the clients' URLs, a cluster's own member first.
func (c *Cluster) members(first string) string {
	urls := []string{"http://" + host(first) + ":2379"}
	for _, n := range c.clusters {
		if n != first {
			urls = append(urls, "http://"+host(n)+":2379")
		}
	}
	return strings.Join(urls, " ")
}

// manifest: the member on the first node, the clients on another if there is one.
func (c *Cluster) manifest(image, cluster string) string {
	var initial []string
	for _, n := range c.clusters {
		initial = append(initial, n+"=http://"+host(n)+":2380")
	}
	start := fmt.Sprintf("/bin/client await %[1]s && exec /bin/etcd --name %[2]s --data-dir /data/etcd --log-outputs stderr"+
		" --listen-peer-urls http://0.0.0.0:2380 --initial-advertise-peer-urls http://%[3]s:2380"+
		" --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://%[3]s:2379"+
		" --initial-cluster %[4]s --initial-cluster-state new --heartbeat-interval 100 --election-timeout %[5]d",
		c.members(cluster), cluster, host(cluster), strings.Join(initial, ","), Election.Milliseconds())
	load := "/bin/client load -name " + cluster + " -log /logs/" + cluster + ".log " + c.members(cluster)
	stale := "/bin/client load -stale -workers 1 -name " + cluster + "-stale -log /logs/" + cluster + "-stale.log " + c.members(cluster)
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {app: %[1]s}, ports: [{name: client, port: 2379}, {name: peer, port: 2380}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  serviceName: %[1]s
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 1
      nodeSelector: {kubernetes.io/hostname: %[5]sn1}
      containers:
      - {name: etcd, image: %[3]q, imagePullPolicy: Never, command: [/bin/sh, -c, %[6]q], resources: {requests: {cpu: %[9]s}}, volumeMounts: [{name: data, mountPath: /data}]}
      volumes: [{name: data, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: %[2]s, labels: {app: client}}
spec:
  terminationGracePeriodSeconds: 1
  affinity:
    nodeAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
      - {weight: 100, preference: {matchExpressions: [{key: kubernetes.io/hostname, operator: NotIn, values: [%[5]sn1]}]}}
  containers:
  - {name: load, image: %[3]q, imagePullPolicy: Never, command: [/bin/sh, -c, %[7]q], resources: {requests: {cpu: %[10]s}}, volumeMounts: [{name: logs, mountPath: /logs}]}
  - {name: stale, image: %[3]q, imagePullPolicy: Never, command: [/bin/sh, -c, %[8]q], volumeMounts: [{name: logs, mountPath: /logs}]}
  volumes: [{name: logs, hostPath: {path: %[4]s}}]
`, app, namespace, image, c.logs.Path, cluster, start, "exec "+load, "exec "+stale, stage.DatabaseCPU, stage.ProbeCPU)
}

// read takes what the clients have added to their logs.
func (c *Cluster) read() error {
	more, err := c.logs.More()
	if err != nil {
		return err
	}
	for name, text := range more {
		ops, err := readLog(strings.NewReader(text))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		c.history[name] = append(c.history[name], ops...)
	}
	return nil
}

// working waits until a write by a client of each cluster has succeeded since now.
func (c *Cluster) working(ctx context.Context) error {
	since := time.Now()
	return stage.Await(ctx, 2*time.Minute, func() error {
		if err := c.read(); err != nil {
			return err
		}
		var idle []error
		now := time.Now()
		for _, n := range c.clusters {
			if writeGap(c.history[n], since, now) == now.Sub(since) { // not one
				idle = append(idle, fmt.Errorf("no client in %s has written since %s", n, since.Format(time.TimeOnly)))
			}
		}
		return errors.Join(idle...)
	})
}

// electing is how long members may take until one of them says that it leads: electing is normal after a fault.
const electing = 30 * time.Second

// leader waits until a member says that it leads, and returns its cluster.
func (c *Cluster) leader(ctx context.Context) (leads string, err error) {
	ask := append([]string{"exec", "-n", namespace, "client", "-c", "load", "--", "/bin/client", "leader"}, strings.Fields(c.members(c.clusters[0]))...)
	err = stage.Await(ctx, electing, func() error {
		out, err := c.stage.Kubectl(ctx, c.clusters[0], ask...)
		if err != nil {
			return err
		}
		i, err := strconv.Atoi(strings.TrimSpace(out))
		if err != nil || i < 0 || i >= len(c.clusters) {
			return fmt.Errorf("leader: %q", out)
		}
		leads = c.clusters[i]
		return nil
	})
	return leads, err
}
