package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"seaway.dev/seaway/e2e/logbook"
	"seaway.dev/seaway/e2e/stage"
)

// target is one flow: what a client of the load asks.
type target struct{ name, kind, addr string }

// Begin starts servers and clients, and waits until every flow works.
func (p *Player) Begin(ctx context.Context) error {
	var err error
	if p.layout, err = p.Stage.Layout(ctx); err != nil {
		return err
	}
	p.vars = map[string]string{"C2": strings.Join(p.of("c2"), " ")}
	if p.logs, err = logbook.New("chaos"); err != nil {
		return err
	}
	if err := p.gateways(ctx); err != nil {
		return err
	}
	if err := p.servers(ctx); err != nil {
		return err
	}
	if err := p.clients(ctx); err != nil {
		return err
	}
	if err := p.settle(ctx, true); err != nil {
		return fmt.Errorf("before any fault: %w", err)
	}
	return nil
}

// of lists the machines of a cluster, the control plane's first.
func (p *Player) of(cluster string) []string {
	var out []string
	for _, m := range p.layout.Machines() {
		if strings.HasPrefix(m, cluster) {
			out = append(out, m)
		}
	}
	return out
}

// End removes the clients' notes.
func (p *Player) End() {
	if p.logs != nil {
		p.logs.Remove()
	}
}

// gateways: where c2 has a third node, its gateways are the two that no server runs on, so that one can be lost.
func (p *Player) gateways(ctx context.Context) error {
	if !slices.Contains(p.layout.Machines(), "c2n3") {
		return nil
	}
	_, err := p.Stage.Kubectl(ctx, "c2", "label", "--overwrite", "node", "c2n2", "c2n3", "seaway.dev/gateway=true")
	return err
}

func (p *Player) servers(ctx context.Context) error {
	one := func(name, cluster string, host bool) stage.App {
		return stage.App{Namespace: Namespace, Name: name, Cluster: cluster, Single: true, Node: cluster + "n1", HostNetwork: host}
	}
	apps := map[string]stage.App{
		"far": one("far", "c2", false), "third": one("third", "c3", false), "plain": one("plain", "c2", true), "plain3": one("plain3", "c1", true),
	}
	for _, c := range []string{"c2", "c3"} {
		apps["web in "+c] = stage.App{Namespace: Namespace, Name: "web", Cluster: c, Replicas: 1, Node: c + "n1"}
	}
	var names []string
	for n := range apps {
		names = append(names, n)
	}
	if err := stage.Each(names, func(n string) error { return p.Stage.Run(ctx, apps[n]) }); err != nil {
		return err
	}
	return stage.Each([]string{"c2", "c3"}, func(c string) error {
		_, err := p.Stage.Seawayctl(ctx, c, "export", "web", "-n", Namespace)
		return err
	})
}

// clients learn the servers' addresses and begin to ask.
func (p *Player) clients(ctx context.Context) error {
	far, err := p.address(ctx, "c2", "far")
	if err != nil {
		return err
	}
	third, err := p.address(ctx, "c3", "third")
	if err != nil {
		return err
	}
	svc, err := p.service(ctx)
	if err != nil {
		return err
	}
	wan := func(cluster string) string {
		cl, _ := p.layout.Cluster(cluster)
		return cl.IPs[cluster+"n1"].String()
	}
	jobs := []struct {
		cluster, name string
		host          bool
		targets       []target
	}{
		{"c1", "client", false, []target{
			{"far.stream", "stream", far}, {"far.dial", "dial", far}, {"far.udp", "udp", far}, {"far.big", "big", far},
			{"third.stream", "stream", third}, {"third.udp", "udp", third},
			{"svc1.stream", "session", svc}, {"svc2.stream", "session", svc}, {"svc3.stream", "session", svc}, {"svc.dial", "dial", svc},
		}},
		{"c1", "plainclient", true, []target{{"plain.stream", "stream", wan("c2")}}},
		{"c3", "plainclient", true, []target{{"plain3.stream", "stream", wan("c1")}}},
	}
	for _, j := range jobs {
		// A client of an earlier load asks other addresses, and a pod cannot be told others.
		if _, err := p.Stage.Kubectl(ctx, j.cluster, "delete", "pod", j.name, "-n", Namespace, "--ignore-not-found", "--wait"); err != nil {
			return err
		}
		if _, err := p.Stage.Apply(ctx, j.cluster, p.client(j.cluster, j.name, j.host, j.targets)); err != nil {
			return err
		}
		if _, err := p.Stage.Kubectl(ctx, j.cluster, "wait", "--for=condition=Ready", "pod/"+j.name, "-n", Namespace, "--timeout=60s"); err != nil {
			return err
		}
	}
	return nil
}

// flows are the names of all flows.
func (p *Player) flows() []string {
	return []string{"far.stream", "far.dial", "far.udp", "far.big", "third.stream", "third.udp", "svc1.stream", "svc2.stream", "svc3.stream", "svc.dial",
		"plain.stream", "plain3.stream"}
}

func (p *Player) client(cluster, name string, host bool, targets []target) string {
	args := []string{"load", "-every", "20ms", "-log", "/logs/" + cluster + "-" + name + ".log"}
	if host { // a control is cut for as long as a series goes on; TCP would then try again after minutes only
		args = append(args, "-give-up", "8s")
	}
	for _, t := range targets {
		args = append(args, t.name+"="+t.kind+":"+t.addr)
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, labels: {app: %[1]s}}
spec:
  terminationGracePeriodSeconds: 1
  hostNetwork: %[6]v
  nodeSelector: {kubernetes.io/hostname: %[5]sn1}
  containers:
  - {name: probe, image: %[3]q, imagePullPolicy: Never, args: ["%[7]s"], resources: {requests: {cpu: %[8]s}}, volumeMounts: [{name: logs, mountPath: /logs}]}
  volumes: [{name: logs, hostPath: {path: %[4]s}}]
`, name, Namespace, p.Stage.Probe, p.logs.Path, cluster, host, strings.Join(args, `", "`), stage.ProbeCPU)
}

// address waits for a pod's address on the slice.
func (p *Player) address(ctx context.Context, cluster, pod string) (string, error) {
	var addr string
	err := stage.Await(ctx, settling, func() error {
		out, err := p.Stage.InPod(ctx, cluster, Namespace, pod, "addrs")
		if err != nil {
			return err
		}
		for _, a := range strings.Fields(out) {
			if !strings.Contains(a, ":") {
				addr = a
				return nil
			}
		}
		return fmt.Errorf("%s/%s has no IPv4 address on a slice", cluster, pod)
	})
	return addr, err
}

// service waits until the service has pods of both clusters behind it, and returns its address as c1 knows it.
func (p *Player) service(ctx context.Context) (string, error) {
	var addr string
	err := stage.Await(ctx, settling, func() error {
		out, err := p.Stage.Kubectl(ctx, "c1", "get", "serviceimport", "web", "-n", Namespace, "-o", "jsonpath={.spec.ips[0]} {.status.clusters[*].cluster}")
		if err != nil {
			return err
		}
		f := strings.Fields(out)
		if len(f) < 3 {
			return errors.New("the import has not both clusters yet: " + out)
		}
		addr = f[0]
		return nil
	})
	return addr, err
}
