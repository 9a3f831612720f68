package controller_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/controller"
	"seaway.dev/seaway/fleet"
)

// TestLive plays one fleet's life on real API servers, each part in namespaces and slices of its own.
func TestLive(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: -short starts no API servers; `make test` does")
	}
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
	// c2/n2 hosts nothing: it is told of nobody but the carriers with which it exchanges bulletins.
	idle := agents["c2/n2"].told("of itself", peer("c2/n2", fleet.ManagementSlice))
	if len(idle.Slices) != 0 || len(idle.Pods) != 0 || len(idle.Clusters) != 2 || len(idle.Clusters[0].Nodes) != 2 {
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
	cut := f.carriers()
	hub.stop()
	c1.create(pod("away", "web-1", "n1", ""))
	agents["c1/n1"].told("of a new pod without the hub", whole(3))
	agents["c2/n1"].told("of the other cluster's new pod without the hub", whole(3))
	cut() // what follows is without the carriers, too

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
