package kube

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"seaway.dev/seaway/discovery"
	"seaway.dev/seaway/fleet"
)

// site is a cluster: a fake API server and the reconciler on it. Its namespaces shop and bank are on slice pay.
type site struct {
	t       *testing.T
	name    string
	client  client.Client
	r       *Reconciler
	others  []*site
	unknown bool // the others' exports are not known yet
	writes  int
	changes int
	addrs   map[string][]netip.Addr // namespace/pod → slice addresses
	links   map[string]bool         // namespace/pod → not attached
	sets    map[string][]string     // namespace/service → pods that StatefulSets give it
	dual    bool
	pods    []netip.Prefix // the cluster's own pod networks, where headless names answer with pods' own addresses
	slices  map[string]string
}

func newSite(t *testing.T, name string) *site {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, name: name, addrs: map[string][]netip.Addr{}, links: map[string]bool{},
		slices: map[string]string{"shop": "pay", "bank": "pay"}}
	s.client = fake.NewClientBuilder().WithScheme(scheme).
		WithStatusSubresource(&mcs.ServiceExport{}, &mcs.ServiceImport{}).
		WithInterceptorFuncs(s.counting()).Build()
	s.restart()
	return s
}

// counting counts what is written.
func (s *site) counting() interceptor.Funcs {
	return interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			s.writes++
			return c.Create(ctx, o, opts...)
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			s.writes++
			return c.Update(ctx, o, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			s.writes++
			return c.Delete(ctx, o, opts...)
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			s.writes++
			return c.SubResource(sub).Update(ctx, o, opts...)
		},
	}
}

// restart replaces the reconciler by a new one that remembers nothing.
func (s *site) restart() {
	s.r = New(s.client, Config{
		Cluster: s.name,
		SliceOf: func(ns string) (string, bool) { slice, ok := s.slices[ns]; return slice, ok },
		Families: func(string) []string {
			if s.dual {
				return []string{discovery.IPv4, discovery.IPv6}
			}
			return []string{discovery.IPv4}
		},
		Pod: func(ns, name string) ([]netip.Addr, bool) {
			return s.addrs[ns+"/"+name], !s.links[ns+"/"+name]
		},
		Networks: func(string) []netip.Prefix { return s.pods },
		Expected: func(ns, service string) []string { return s.sets[ns+"/"+service] },
		IPs: func(slice, ns, name string) []netip.Addr {
			ips := []netip.Addr{netip.MustParseAddr("10.9.255.1"), netip.MustParseAddr("fd00:9::ff01")}
			if !s.dual {
				ips = ips[:1]
			}
			return ips
		},
		Remote: func() (map[string][]fleet.Export, bool) {
			out := map[string][]fleet.Export{}
			for _, o := range s.others {
				out[o.name], _ = o.r.Exports()
			}
			return out, !s.unknown
		},
		Changed: func() { s.changes++ },
	})
	s.r.LocalChanged()
}

// settle reconciles everything at all sites until nobody writes any more.
func settle(sites ...*site) {
	for _, s := range sites {
		s.t.Helper()
	}
	for round := 0; ; round++ {
		if round == 20 {
			sites[0].t.Fatal("after 20 rounds something still writes")
		}
		before := 0
		for _, s := range sites {
			before += s.writes + s.changes
		}
		for _, s := range sites {
			s.r.RemoteChanged()
			for _, key := range s.keys() {
				if _, err := s.r.Reconcile(s.t.Context(), reconcile.Request{NamespacedName: key}); err != nil {
					s.t.Fatalf("%s: reconcile %s: %v", s.name, key, err)
				}
			}
		}
		after := 0
		for _, s := range sites {
			after += s.writes + s.changes
		}
		if after == before {
			return
		}
	}
}

// keys lists every name that any object or export is about, and the empty one.
func (s *site) keys() []types.NamespacedName {
	keys := []types.NamespacedName{{}}
	var exports mcs.ServiceExportList
	var imports mcs.ServiceImportList
	for _, l := range []client.ObjectList{&exports, &imports} {
		if err := s.client.List(s.t.Context(), l); err != nil {
			s.t.Fatal(err)
		}
	}
	for i := range exports.Items {
		keys = append(keys, client.ObjectKeyFromObject(&exports.Items[i]))
	}
	for i := range imports.Items {
		keys = append(keys, client.ObjectKeyFromObject(&imports.Items[i]))
	}
	for _, o := range append(s.others, s) {
		es, _ := o.r.Exports()
		for _, e := range es {
			keys = append(keys, types.NamespacedName{Namespace: e.Namespace, Name: e.Name})
		}
	}
	return keys
}

func (s *site) create(objects ...client.Object) {
	s.t.Helper()
	for _, o := range objects {
		if err := s.client.Create(s.t.Context(), o); err != nil {
			s.t.Fatal(err)
		}
	}
	s.writes -= len(objects)
}

func (s *site) update(o client.Object) {
	s.t.Helper()
	if err := s.client.Update(s.t.Context(), o); err != nil {
		s.t.Fatal(err)
	}
	s.writes--
}

func (s *site) delete(o client.Object) {
	s.t.Helper()
	if err := s.client.Delete(s.t.Context(), o); err != nil {
		s.t.Fatal(err)
	}
	s.writes--
}

// web makes what a cluster has when it exports shop/web: the Service, its EndpointSlice with one ready pod, the export.
func (s *site) web(nth int, change ...func(*corev1.Service, *mcs.ServiceExport)) {
	s.t.Helper()
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Labels: map[string]string{"dummy-svc": "dummy"}},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.7", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			SessionAffinity: corev1.ServiceAffinityNone,
			Ports:           []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(8080)}}}}
	export := &mcs.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web",
		CreationTimestamp: metav1.NewTime(time.Date(2026, 11, 1, 12, 0, nth, 0, time.UTC))}}
	for _, c := range change {
		c(service, export)
	}
	s.create(service, export)
	s.endpoints("web", "web-x")
}

// endpoints makes the EndpointSlice of a Service with ready pods of port http.
func (s *site) endpoints(service string, pods ...string) *discoveryv1.EndpointSlice {
	s.t.Helper()
	name, port, protocol := "http", int32(8080), corev1.ProtocolTCP
	es := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: service + "-abcde", Labels: map[string]string{
			discoveryv1.LabelServiceName: service, discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}},
	}
	for i, pod := range pods {
		ready, node := true, "n1"
		es.Endpoints = append(es.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.244.0.%d", i+5)},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready}, NodeName: &node,
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: pod}})
		if _, ok := s.addrs["shop/"+pod]; !ok {
			s.addrs["shop/"+pod] = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.9.%c.%d", s.name[1], i+1))}
		}
	}
	s.create(es)
	return es
}

// export returns the ServiceExport shop/web.
func (s *site) export() *mcs.ServiceExport {
	s.t.Helper()
	o := new(mcs.ServiceExport)
	if err := s.client.Get(s.t.Context(), types.NamespacedName{Namespace: "shop", Name: "web"}, o); err != nil {
		s.t.Fatal(err)
	}
	return o
}

// imported returns the ServiceImport shop/web, nil if there is none.
func (s *site) imported() *mcs.ServiceImport {
	s.t.Helper()
	o := new(mcs.ServiceImport)
	err := s.client.Get(s.t.Context(), types.NamespacedName{Namespace: "shop", Name: "web"}, o)
	if client.IgnoreNotFound(err) != nil {
		s.t.Fatal(err)
	}
	if err != nil {
		return nil
	}
	return o
}

// endpointSlices prints our EndpointSlices, one a line, sorted.
func (s *site) endpointSlices() string {
	s.t.Helper()
	var list discoveryv1.EndpointSliceList
	if err := s.client.List(s.t.Context(), &list, client.MatchingLabels{discoveryv1.LabelManagedBy: ManagedBy}); err != nil {
		s.t.Fatal(err)
	}
	var lines []string
	for _, es := range list.Items {
		line := fmt.Sprintf("%s/%s from %s %s", es.Namespace, es.Labels[mcs.LabelServiceName], es.Labels[mcs.LabelSourceCluster], es.AddressType)
		for _, p := range es.Ports {
			line += fmt.Sprintf(" %s=%d/%s", *p.Name, *p.Port, *p.Protocol)
		}
		for _, e := range es.Endpoints {
			host := ""
			if e.Hostname != nil {
				host = *e.Hostname
			}
			line += fmt.Sprintf(" [%s %s %v]", strings.Join(e.Addresses, ","), host, *e.Conditions.Ready)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// condition prints a condition of the export shop/web.
func (s *site) condition(kind string) string {
	s.t.Helper()
	c := meta.FindStatusCondition(s.export().Status.Conditions, kind)
	if c == nil {
		return "none"
	}
	return fmt.Sprintf("%s %s", c.Status, c.Reason)
}

func (s *site) wantCondition(kind, want string) {
	s.t.Helper()
	if got := s.condition(kind); got != want {
		s.t.Errorf("%s: the export's condition %s is %q, want %q", s.name, kind, got, want)
	}
}

func wantEqual(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\ngot  %v\nwant %v", what, got, want)
	}
}

// pair returns two clusters that know each other.
func pair(t *testing.T) (a, b *site) {
	a, b = newSite(t, "c1"), newSite(t, "c2")
	a.others, b.others = []*site{b}, []*site{a}
	return a, b
}
