package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"seaway.dev/seaway/e2e/stage"
	"seaway.dev/seaway/e2e/wire"
)

// The demo's cast.
const (
	prefix = "10.77.0.0/16"
	name   = "http://web.shop.svc.clusterset.local:8080/"
	mark   = "cluster=" // in every answer of the web application; an eavesdropper looks for it
)

var members = []string{"c1", "c2", "c3"}

type demo struct {
	*teller
	stage      *stage.Stage
	containers map[string]string // of the application, before Seaway came
	client     netip.Addr        // of the client, on the slice
}

func (d *demo) clusters(ctx context.Context) error {
	d.chapter("Four real Kubernetes clusters on this machine")
	d.text("A hub, and three members: c1 and c2 are public, c3 sits behind a NAT and can only\ndial out. They know nothing of each other, and all use the same addresses.")
	if err := d.step("build Seaway and its image", func() (string, error) {
		return "one static program", d.stage.Build(ctx)
	}); err != nil {
		return err
	}
	if err := d.step("start the clusters", func() (string, error) {
		if err := d.stage.Up(ctx); err != nil {
			return "", err
		}
		if err := d.stage.Clean(ctx); err != nil {
			return "", err
		}
		if err := d.stage.Uninstall(ctx); err != nil {
			return "", err
		}
		l, err := d.stage.Layout(ctx)
		return fmt.Sprintf("%d clusters, %d machines", len(l.Clusters), len(l.Machines())), err
	}); err != nil {
		return err
	}
	if err := d.step("put the images into the nodes", func() (string, error) { return "", d.stage.Images(ctx) }); err != nil {
		return err
	}
	return nil
}

func (d *demo) application(ctx context.Context) error {
	d.chapter("An application is already running")
	err := d.step("web in c1 and c3, a client in c2, strangers in c2", func() (string, error) {
		if err := stage.Each(members, func(c string) error { return d.stage.Namespace(ctx, c, "shop") }); err != nil {
			return "", err
		}
		if err := stage.Each([]string{"c1", "c2"}, func(c string) error { return d.stage.Namespace(ctx, c, "bank") }); err != nil {
			return "", err
		}
		apps := map[string]stage.App{
			"web c1":    {Namespace: "shop", Name: "web", Cluster: "c1"},
			"web c3":    {Namespace: "shop", Name: "web", Cluster: "c3"},
			"client c2": {Namespace: "shop", Name: "client", Cluster: "c2", Single: true},
			"thief c2":  {Namespace: "bank", Name: "stranger", Cluster: "c2", Single: true},
			"vault c1":  {Namespace: "bank", Name: "vault", Cluster: "c1"},
		}
		var names []string
		for n := range apps {
			names = append(names, n)
		}
		return "ready", stage.Each(names, func(n string) error { return d.stage.Run(ctx, apps[n]) })
	})
	if err != nil {
		return err
	}
	var lines []string
	for _, c := range members {
		pods, err := d.stage.Pods(ctx, c, "shop")
		if err != nil {
			return err
		}
		svc, err := d.stage.Kubectl(ctx, c, "get", "service", "kubernetes", "-n", "default", "-o", "jsonpath={.spec.clusterIP}")
		if err != nil {
			return err
		}
		for _, p := range pods {
			lines = append(lines, fmt.Sprintf("%-4s pod %-24s %-13s on %s   API service %s", c, p.Name, p.IP, p.Node, svc))
		}
	}
	d.text("The same pod and service addresses in each of them:")
	d.seen(strings.Join(lines, "\n"))
	d.containers, err = d.processes(ctx)
	if err != nil {
		return err
	}
	out, err := d.stage.InPod(ctx, "c2", "shop", "client", "get", name)
	if err == nil {
		return fmt.Errorf("the client reached the web application before Seaway was there:\n%s", out)
	}
	d.text("And the client cannot reach the application: there is no such name yet.")
	return nil
}

// processes are the application's containers with what would change if one were restarted.
func (d *demo) processes(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	for _, c := range members {
		pods, err := d.stage.Pods(ctx, c, "shop")
		if err != nil {
			return nil, err
		}
		for _, p := range pods {
			for _, k := range p.Containers {
				all[c+" "+p.Name] = fmt.Sprintf("%.24s restarts=%d since %s", k.ID, k.Restarts, k.Started.Format(time.TimeOnly))
			}
		}
	}
	return all, nil
}

func (d *demo) join(ctx context.Context) error {
	d.chapter("Seaway: one command for the hub, one for each cluster")
	d.typed("seaway install hub")
	if err := d.step("install the hub", func() (string, error) { return "ready", d.stage.Install(ctx) }); err != nil {
		return err
	}
	d.typed("seaway join --token $(seaway token create c1)      # and c2; c3 with --private")
	return d.step("join c1, c2 and c3", func() (string, error) {
		return "ready; they only dial out", d.stage.Install(ctx, members...)
	})
}

func (d *demo) slice(ctx context.Context) error {
	d.chapter("A slice: a network of its own for the shop")
	d.typed("seaway slice create shop --prefix " + prefix + " --namespace shop")
	d.typed("seaway export web -n shop                          # in c1 and in c3")
	var first string
	err := d.step("from the slice to the first answer", func() (string, error) {
		if _, err := d.stage.Seawayctl(ctx, stage.Hub, "slice", "create", "shop", "--prefix", prefix, "--namespace", "shop"); err != nil {
			return "", err
		}
		if err := stage.Each([]string{"c1", "c3"}, func(c string) error {
			_, err := d.stage.Seawayctl(ctx, c, "export", "web", "-n", "shop")
			return err
		}); err != nil {
			return "", err
		}
		err := stage.Await(ctx, time.Minute, func() (err error) {
			first, err = d.stage.InPod(ctx, "c2", "shop", "client", "get", name)
			return err
		})
		return field(first, "cluster") + " answered", err
	})
	if err != nil {
		return err
	}
	d.text("In c2, the client asks %s", name)
	d.seen(first)
	return nil
}

var fieldRule = regexp.MustCompile(`(\w+)=(\S+)`)

// field reads a value of an answer.
func field(answer, key string) string {
	for _, m := range fieldRule.FindAllStringSubmatch(answer, -1) {
		if m[1] == key {
			return m[2]
		}
	}
	return ""
}

func (d *demo) answers(ctx context.Context) error {
	d.chapter("Both sites answer, and see who asked")
	count := map[string]int{}
	const requests = 40
	if err := d.step(fmt.Sprintf("%d requests", requests), func() (string, error) {
		err := stage.Await(ctx, 30*time.Second, func() error {
			out, err := d.stage.InPod(ctx, "c2", "shop", "client", "get", "-n", fmt.Sprint(requests), name)
			if err != nil {
				return err
			}
			clear(count)
			for l := range strings.Lines(out) {
				count[field(l, "cluster")+", asked by "+hostOf(field(l, "remote"))]++
			}
			if len(count) < 2 {
				return fmt.Errorf("only one site answers: %v", count)
			}
			return nil
		})
		return fmt.Sprintf("%d sites", len(count)), err
	}); err != nil {
		return err
	}
	var lines []string
	for k, n := range count {
		lines = append(lines, fmt.Sprintf("%3d answers from %s", n, k))
	}
	slices.Sort(lines)
	d.seen(strings.Join(lines, "\n"))
	out, err := d.stage.InPod(ctx, "c2", "shop", "client", "addrs")
	if err != nil {
		return err
	}
	if d.client, err = netip.ParseAddr(strings.TrimSpace(strings.Split(out, "\n")[0])); err != nil {
		return err
	}
	for k := range count {
		if !strings.HasSuffix(k, " "+d.client.String()) {
			return fmt.Errorf("an answer was for somebody else than the client's own address %s: %s", d.client, k)
		}
	}
	d.text("%s is the client's own address on the slice: no NAT in between.", d.client)
	return nil
}

func hostOf(addr string) string {
	if ap, err := netip.ParseAddrPort(addr); err == nil {
		return ap.Addr().Unmap().String()
	}
	return addr
}

func (d *demo) stranger(ctx context.Context) error {
	d.chapter("A second slice with the very same addresses")
	d.typed("seaway slice create bank --prefix " + prefix + " --namespace bank")
	var web string
	return d.step("strangers on the same prefix cannot reach the shop", func() (string, error) {
		if _, err := d.stage.Seawayctl(ctx, stage.Hub, "slice", "create", "bank", "--prefix", prefix, "--namespace", "bank"); err != nil {
			return "", err
		}
		if _, err := d.stage.Seawayctl(ctx, "c1", "export", "vault", "-n", "bank"); err != nil {
			return "", err
		}
		// The control: on its own slice the stranger gets an answer, so its network works.
		if err := stage.Await(ctx, time.Minute, func() error {
			_, err := d.stage.InPod(ctx, "c2", "bank", "stranger", "get", "http://vault.bank.svc.clusterset.local:8080/")
			return err
		}); err != nil {
			return "", fmt.Errorf("the stranger's own slice does not work, so nothing is proven: %w", err)
		}
		out, err := d.stage.InPod(ctx, "c3", "shop", "web", "addrs")
		if err != nil {
			return "", err
		}
		web = strings.TrimSpace(strings.Split(out, "\n")[0])
		if _, err := d.stage.InPod(ctx, "c2", "shop", "client", "get", "http://"+web+":8080/"); err != nil {
			return "", fmt.Errorf("the client does not reach %s, so it is no proof that the stranger does not: %w", web, err)
		}
		for _, url := range []string{"http://" + web + ":8080/", name} {
			out, err := d.stage.InPod(ctx, "c2", "bank", "stranger", "get", url)
			if err == nil && strings.Contains(out, "pod=web") {
				return "", fmt.Errorf("the stranger reached the shop at %s: %s", url, out)
			}
		}
		return web + " answers the client only", nil
	})
}

func (d *demo) eavesdrop(ctx context.Context) error {
	d.chapter("What an eavesdropper on the WAN sees")
	d.typed("seaway-lab wan capture -o wan.pcap")
	var sealed, plain []wire.Flow
	err := d.step("capture while the client asks over the slice", func() (_ string, err error) {
		sealed, err = d.stage.Capture(ctx, mark, func() error {
			_, err := d.stage.InPod(ctx, "c2", "shop", "client", "get", "-n", "20", name)
			return err
		})
		if err != nil {
			return "", err
		}
		return "one UDP port, nothing to read", onlySealed(sealed)
	})
	if err != nil {
		return err
	}
	d.seen(wire.Table(sealed))
	err = d.step("control: the same request without Seaway (NodePort)", func() (_ string, err error) {
		node, port, err := d.nodePort(ctx)
		if err != nil {
			return "", err
		}
		plain, err = d.stage.Capture(ctx, mark, func() error {
			_, err := d.stage.InPod(ctx, "c2", "shop", "client", "get", "-n", "20", fmt.Sprintf("http://%s:%s/", node, port))
			return err
		})
		if err == nil && onlySealed(plain) == nil {
			err = errors.New("plain HTTP left no readable trace in the capture, so the capture proves nothing")
		}
		return "every word can be read", err
	})
	if err != nil {
		return err
	}
	d.seen(wire.Table(plain))
	return nil
}

// onlySealed says what in a capture is not Seaway's one port, or can be read.
func onlySealed(flows []wire.Flow) error {
	packets := 0
	for _, f := range flows {
		packets += f.Packets
		if f.Protocol != "udp" || f.Port != 51871 || f.Readable > 0 {
			return fmt.Errorf("between members there is something else than Seaway's sealed packets:\n%s", wire.Table(flows))
		}
	}
	if packets == 0 {
		return errors.New("nothing went between the members, so nothing is proven")
	}
	return nil
}

// nodePort opens the web application of c1 to the world, as one would without Seaway.
func (d *demo) nodePort(ctx context.Context) (node netip.Addr, port string, err error) {
	if _, err := d.stage.Kubectl(ctx, "c1", "patch", "service", "web", "-n", "shop", "-p", `{"spec":{"type":"NodePort"}}`); err != nil {
		return node, "", err
	}
	port, err = d.stage.Kubectl(ctx, "c1", "get", "service", "web", "-n", "shop", "-o", `jsonpath={.spec.ports[?(@.name=="http")].nodePort}`)
	if err != nil {
		return node, "", err
	}
	l, err := d.stage.Layout(ctx)
	if err != nil {
		return node, "", err
	}
	c, err := l.Cluster("c1")
	if err != nil {
		return node, "", err
	}
	node = c.IPs[c.Nodes[0]]
	err = stage.Await(ctx, 30*time.Second, func() error { // until kube-proxy has heard of it
		_, err := d.stage.InPod(ctx, "c2", "shop", "client", "get", fmt.Sprintf("http://%s:%s/", node, port))
		return err
	})
	return node, port, err
}

func (d *demo) untouched(ctx context.Context) error {
	d.chapter("Nothing was restarted")
	return d.step("the application's containers are the ones from before", func() (string, error) {
		now, err := d.processes(ctx)
		if err != nil {
			return "", err
		}
		for pod, was := range d.containers {
			if now[pod] != was {
				return "", fmt.Errorf("%s was %q and is %q", pod, was, now[pod])
			}
		}
		return fmt.Sprintf("%d containers, 0 restarts", len(now)), nil
	})
}

// next says what to type now.
func (d *demo) next() {
	d.chapter("What to type next")
	lab := d.stage.Lab
	d.print(`  export PATH=$PATH:%s
  export KUBECONFIG=$(seaway-lab kubeconfig hub)
  seaway status                                    the fleet, its slices, its paths
  seaway slice show shop                           what it is and why
  seaway-lab kubectl c2 exec -n shop client -- /probe get -n 5 %s
  seaway-lab wan cut c2n1 c1n1                     break a path; then: seaway status
  seaway-lab machine reboot c3n1                   pull a plug; the pods come back to their slice
  seaway uninstall --kubeconfig $(seaway-lab kubeconfig c1)    leave no trace
  make demo-down                                   take it all away
`, lab[:strings.LastIndex(lab, "/")], name)
}
