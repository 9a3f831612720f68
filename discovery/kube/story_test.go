package kube

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"seaway.dev/seaway/discovery"
)

// The titles follow the standard's conformance suite where it has such a spec.

func TestExportIsImportedInEachClusterAndUnexportDeletes(t *testing.T) {
	c1, c2 := pair(t)
	c1.web(0)
	settle(c1, c2)
	for _, s := range []*site{c1, c2} {
		im := s.imported()
		if im == nil {
			t.Fatalf("%s has no ServiceImport", s.name)
		}
		wantEqual(t, s.name+" spec", im.Spec, mcs.ServiceImportSpec{Type: mcs.ClusterSetIP, IPs: []string{"10.9.255.1"},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, SessionAffinity: corev1.ServiceAffinityNone,
			Ports: []mcs.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}})
		wantEqual(t, s.name+" clusters", im.Status.Clusters, []mcs.ClusterStatus{{Cluster: "c1"}})
		wantEqual(t, s.name+" endpointSliceObjects", im.Status.EndpointSliceObjects, mcs.EndpointSliceObjectsPresent)
		wantEqual(t, s.name+" ready", im.Status.Conditions[0].Status, metav1.ConditionTrue)
		wantEqual(t, s.name+" EndpointSlices", s.endpointSlices(), "shop/web from c1 IPv4 http=8080/TCP [10.9.1.1  true]")
		services, ok := s.r.Services()
		if !ok || len(services) != 1 || len(services[0].Endpoints) != 1 {
			t.Errorf("%s: services are %v %+v", s.name, ok, services)
		}
	}
	c1.wantCondition("Valid", "True Valid")
	c1.wantCondition("Ready", "True Exported")
	c1.wantCondition("Conflict", "False NoConflicts")

	c1.delete(c1.export())
	settle(c1, c2)
	for _, s := range []*site{c1, c2} {
		if s.imported() != nil || s.endpointSlices() != "" {
			t.Errorf("%s: after the unexport there are still %v %s", s.name, s.imported(), s.endpointSlices())
		}
	}
}

func TestImportLivesAsLongAsOneClusterExports(t *testing.T) {
	c1, c2 := pair(t)
	c1.web(0)
	c2.web(1)
	settle(c1, c2)
	wantEqual(t, "EndpointSlices", c1.endpointSlices(),
		"shop/web from c1 IPv4 http=8080/TCP [10.9.1.1  true]\nshop/web from c2 IPv4 http=8080/TCP [10.9.2.1  true]")
	c1.delete(c1.export())
	settle(c1, c2)
	wantEqual(t, "EndpointSlices", c1.endpointSlices(), "shop/web from c2 IPv4 http=8080/TCP [10.9.2.1  true]")
	c2.delete(c2.export())
	settle(c1, c2)
	if c1.imported() != nil {
		t.Error("the import outlives its last export")
	}
}

func TestPropertiesOfTheServiceAreImported(t *testing.T) {
	c1 := newSite(t, "c1")
	timeout, local, close := int32(10), corev1.ServiceInternalTrafficPolicyLocal, corev1.ServiceTrafficDistributionPreferClose
	app := "kubernetes.io/h2c"
	affinity := &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}}
	c1.web(0, func(s *corev1.Service, e *mcs.ServiceExport) {
		s.Spec.SessionAffinity, s.Spec.SessionAffinityConfig = corev1.ServiceAffinityClientIP, affinity
		s.Spec.InternalTrafficPolicy, s.Spec.TrafficDistribution = &local, &close
		s.Spec.Ports[0].AppProtocol = &app
		s.Annotations = map[string]string{"dummy-svc": "dummy"}
		e.Spec.ExportedLabels = map[string]string{"dummy-label": "true"}
		e.Spec.ExportedAnnotations = map[string]string{"dummy-annotation": "true"}
	})
	settle(c1)
	im := c1.imported()
	wantEqual(t, "sessionAffinity", im.Spec.SessionAffinity, corev1.ServiceAffinityClientIP)
	wantEqual(t, "sessionAffinityConfig", im.Spec.SessionAffinityConfig, affinity)
	wantEqual(t, "internalTrafficPolicy", *im.Spec.InternalTrafficPolicy, local)
	wantEqual(t, "trafficDistribution", *im.Spec.TrafficDistribution, close)
	wantEqual(t, "appProtocol", *im.Spec.Ports[0].AppProtocol, app)
	wantEqual(t, "labels", im.Labels, map[string]string{managedByLabel: ManagedBy, "dummy-label": "true"})
	wantEqual(t, "annotation", im.Annotations["dummy-annotation"], "true")
	wantEqual(t, "annotation of the Service", im.Annotations["dummy-svc"], "")

	// What others write on an import stays; what the export does not say any more goes.
	im.Labels["theirs"] = "1"
	c1.update(im)
	e := c1.export()
	e.Spec.ExportedLabels, e.Spec.ExportedAnnotations = map[string]string{"other": "1"}, nil
	c1.update(e)
	settle(c1)
	im = c1.imported()
	wantEqual(t, "labels", im.Labels, map[string]string{managedByLabel: ManagedBy, "other": "1", "theirs": "1"})
	wantEqual(t, "annotation", im.Annotations["dummy-annotation"], "")
}

func TestConflictsAreReportedOnEachExport(t *testing.T) {
	port := func(ports ...corev1.ServicePort) func(*corev1.Service, *mcs.ServiceExport) {
		return func(s *corev1.Service, _ *mcs.ServiceExport) { s.Spec.Ports = ports }
	}
	http := corev1.ServicePort{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}
	http81, stcp := http, corev1.ServicePort{Name: "stcp", Protocol: corev1.ProtocolSCTP, Port: 142}
	http81.Port = 81
	for _, c := range []struct {
		name     string
		second   func(*corev1.Service, *mcs.ServiceExport)
		reason   string
		ports    string
		headless bool
	}{
		{"a union of ports", port(http, stcp), "PortConflict", "http=80 stcp=142", false},
		{"conflicting ports", port(http81), "PortConflict", "http=80", false},
		{"headless or not", func(s *corev1.Service, _ *mcs.ServiceExport) { s.Spec.ClusterIP = corev1.ClusterIPNone }, "TypeConflict", "http=80", false},
		{"labels", func(_ *corev1.Service, e *mcs.ServiceExport) { e.Spec.ExportedLabels = map[string]string{"a": "b"} }, "LabelsConflict", "http=80", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c1, c2 := pair(t)
			c1.web(0)
			c2.web(1, c.second)
			settle(c1, c2)
			for _, s := range []*site{c1, c2} {
				s.wantCondition("Conflict", "True "+c.reason)
				s.wantCondition("Valid", "True Valid")
				var ports []string
				for _, p := range s.imported().Spec.Ports {
					ports = append(ports, fmt.Sprintf("%s=%d", p.Name, p.Port))
				}
				wantEqual(t, "ports", strings.Join(ports, " "), c.ports)
				wantEqual(t, "type", s.imported().Spec.Type, mcs.ClusterSetIP)
			}
			c1.delete(c1.export())
			settle(c1, c2)
			c2.wantCondition("Conflict", "False NoConflicts")
		})
	}
}

func TestBadExportsSayWhatToDo(t *testing.T) {
	c1, c2 := pair(t)
	c1.create(&mcs.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}})
	settle(c1, c2)
	c1.wantCondition("Valid", "False NoService")
	c1.wantCondition("Ready", "False Pending")
	c1.wantCondition("Conflict", "none")

	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}}
	c1.create(service)
	settle(c1, c2)
	c1.wantCondition("Valid", "False InvalidServiceType")
	if c1.imported() != nil || c2.imported() != nil {
		t.Error("an ExternalName service was imported")
	}

	service.Spec = corev1.ServiceSpec{ClusterIP: "10.96.0.7", Ports: []corev1.ServicePort{{Port: 80}}}
	c1.update(service)
	settle(c1, c2)
	c1.wantCondition("Valid", "True Valid")
	wantEqual(t, "the address of a port without protocol", c2.imported().Spec.Ports, []mcs.ServicePort{{Protocol: corev1.ProtocolTCP, Port: 80}})

	few := service.Spec.Ports
	for i := range discovery.MaxPorts {
		service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", i), Port: int32(1000 + i)})
	}
	c1.update(service)
	settle(c1, c2)
	c1.wantCondition("Valid", "False TooManyPorts")
	if c1.imported() != nil || c2.imported() != nil {
		t.Error("a service with too many ports was imported")
	}
	service.Spec.Ports = few
	c1.update(service)
	settle(c1, c2)
	c1.wantCondition("Valid", "True Valid")

	delete(c1.slices, "shop")
	settle(c1, c2)
	c1.wantCondition("Valid", "False NamespaceNotOnSlice")
	c1.wantCondition("Conflict", "none")
	if c1.imported() != nil || c2.imported() != nil {
		t.Error("the import stays though its only export's namespace left the slice")
	}
}

func TestImportOnlyWhereTheNamespaceIsOnTheSlice(t *testing.T) {
	c1, c2 := pair(t)
	c1.web(0)
	delete(c2.slices, "shop")
	settle(c1, c2)
	if c2.imported() != nil {
		t.Error("imported although the namespace is on no slice there")
	}
	c2.slices["shop"] = "lab"
	settle(c1, c2)
	if c2.imported() != nil {
		t.Error("imported although the namespace is on another slice there")
	}
	c2.slices["shop"] = "pay"
	settle(c1, c2)
	if c2.imported() == nil {
		t.Error("not imported although the namespace joined the slice")
	}
}

func TestHeadlessStatefulSetKeepsItsNames(t *testing.T) {
	c1, c2 := pair(t)
	c1.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}}},
		&mcs.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}})
	es := c1.endpoints("web", "web-0", "web-1", "guest")
	no := false
	for i := range 2 {
		es.Endpoints[i].Hostname = &es.Endpoints[i].TargetRef.Name
	}
	es.Endpoints[1].Conditions.Ready = &no
	c1.update(es)
	settle(c1, c2)
	im := c2.imported()
	wantEqual(t, "type", im.Spec.Type, mcs.Headless)
	wantEqual(t, "ips", len(im.Spec.IPs), 0)
	wantEqual(t, "EndpointSlices", c2.endpointSlices(),
		"shop/web from c1 IPv4 http=8080/TCP [10.9.1.3 10-244-0-7 true] [10.9.1.1 web-0 true] [10.9.1.2 web-1 false]")

	// A pod with a name of its own is known before it has an address; the nameless one is not.
	c1.addrs = map[string][]netip.Addr{"shop/web-0": c1.addrs["shop/web-0"]}
	settle(c1, c2)
	services, _ := c2.r.Services()
	var got []string
	for _, e := range services[0].Endpoints {
		got = append(got, fmt.Sprint(e.Hostname, e.Addrs, e.Ready))
	}
	wantEqual(t, "endpoints", got, []string{"web-0[10.9.1.1] true", "web-1[] false"})
}

// While a StatefulSet's pods start, restart or move, Kubernetes lists none of them; their names and addresses stay.
func TestStatefulSetHasItsNamesBeforeItsPods(t *testing.T) {
	c1, c2 := pair(t)
	c1.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(8080)}}}},
		&mcs.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}})
	c1.sets = map[string][]string{"shop/web": {"web-0", "web-1", "web-2"}}
	c1.addrs = map[string][]netip.Addr{"shop/web-0": {netip.MustParseAddr("10.9.1.1")}, "shop/web-1": {netip.MustParseAddr("10.9.1.2")}}
	names := func() (got []string) {
		settle(c1, c2)
		services, _ := c2.r.Services()
		for _, e := range services[0].Endpoints {
			got = append(got, fmt.Sprint(e.Hostname, e.Addrs, e.Ready, e.Ports))
		}
		return got
	}
	none := []string{"web-0[10.9.1.1] false map[http:8080]", "web-1[10.9.1.2] false map[http:8080]", "web-2[] false map[http:8080]"}
	wantEqual(t, "before the pods", names(), none)
	es := c1.endpoints("web", "web-0")
	es.Endpoints[0].Hostname = &es.Endpoints[0].TargetRef.Name
	c1.addrs["shop/web-0"] = []netip.Addr{netip.MustParseAddr("10.9.1.1")}
	c1.update(es)
	wantEqual(t, "one is there", names()[0], "web-0[10.9.1.1] true map[http:8080]")
	c1.delete(es)
	wantEqual(t, "it is gone for a moment", names(), none)
	c1.sets["shop/web"] = []string{"web-0"}
	c1.r.LocalChanged("shop")
	wantEqual(t, "scaled down", names(), none[:1])
}

// On a slice whose addresses are Pod, a headless service's pods are told with the addresses that their cluster gave them,
// as far as these are in its network; a service with an address of its own goes on with the slice's.
func TestHeadlessPodsAreToldWithTheirOwnAddresses(t *testing.T) {
	c1, c2 := pair(t)
	c1.pods = []netip.Prefix{netip.MustParsePrefix("10.244.0.4/31")} // web-0's and not the others'
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}}}
	c1.create(service, &mcs.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}})
	c1.endpoints("web", "web-0", "web-1")
	settle(c1, c2)
	wantEqual(t, "EndpointSlices", c2.endpointSlices(),
		"shop/web from c1 IPv4 http=8080/TCP [10.244.0.5 10-244-0-5 true] [10.9.1.2 10-244-0-6 true]")
	services, _ := c2.r.Services()
	wantEqual(t, "on the slice", services[0].Endpoints[0].Addrs, []netip.Addr{netip.MustParseAddr("10.9.1.1")})

	c1.pods = nil
	c1.r.LocalChanged("shop")
	settle(c1, c2)
	wantEqual(t, "EndpointSlices with the slice's", c2.endpointSlices(),
		"shop/web from c1 IPv4 http=8080/TCP [10.9.1.1 10-244-0-5 true] [10.9.1.2 10-244-0-6 true]")

	c1.pods = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
	service.Spec.ClusterIP = "10.96.0.7"
	c1.update(service)
	settle(c1, c2)
	wantEqual(t, "EndpointSlices of a service with an address", c2.endpointSlices(),
		"shop/web from c1 IPv4 http=8080/TCP [10.9.1.1  true] [10.9.1.2  true]")
}

func TestTrafficGoesOnlyWhereTheLinkWorks(t *testing.T) {
	c1, c2 := pair(t)
	c1.web(0)
	c1.links["shop/web-x"] = true // not attached
	settle(c1, c2)
	wantEqual(t, "EndpointSlices", c2.endpointSlices(), "shop/web from c1 IPv4 http=8080/TCP [10.9.1.1  false]")
	delete(c1.links, "shop/web-x")
	settle(c1, c2)
	wantEqual(t, "EndpointSlices", c2.endpointSlices(), "shop/web from c1 IPv4 http=8080/TCP [10.9.1.1  true]")
}

func TestBothFamiliesWhereTheSliceAndTheServiceHaveThem(t *testing.T) {
	c1, c2 := pair(t)
	c1.dual, c2.dual = true, true
	both := corev1.IPFamilyPolicyPreferDualStack
	c1.addrs["shop/web-x"] = []netip.Addr{netip.MustParseAddr("10.9.1.1"), netip.MustParseAddr("fd00:9:1::1")}
	c1.web(0, func(s *corev1.Service, _ *mcs.ServiceExport) { s.Spec.IPFamilyPolicy = &both })
	settle(c1, c2)
	im := c2.imported()
	wantEqual(t, "ips", im.Spec.IPs, []string{"10.9.255.1", "fd00:9::ff01"})
	wantEqual(t, "families", im.Spec.IPFamilies, []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol})
	wantEqual(t, "EndpointSlices", c2.endpointSlices(), "shop/web from c1 IPv4 http=8080/TCP [10.9.1.1  true]\nshop/web from c1 IPv6 http=8080/TCP [fd00:9:1::1  true]")

	single := corev1.IPFamilyPolicySingleStack
	service := new(corev1.Service)
	if err := c1.client.Get(t.Context(), types.NamespacedName{Namespace: "shop", Name: "web"}, service); err != nil {
		t.Fatal(err)
	}
	service.Spec.IPFamilyPolicy = &single
	c1.update(service)
	settle(c1, c2)
	wantEqual(t, "ips", c2.imported().Spec.IPs, []string{"10.9.255.1"})
	wantEqual(t, "EndpointSlices", c2.endpointSlices(), "shop/web from c1 IPv4 http=8080/TCP [10.9.1.1  true]")
}

func TestSettledMeansNoWrites(t *testing.T) {
	c1, c2 := pair(t)
	c1.web(0)
	c2.web(1)
	settle(c1, c2)
	for _, s := range []*site{c1, c2} {
		before, changes := s.writes, s.changes
		s.restart()
		settle(c1, c2)
		wantEqual(t, s.name+": writes after a restart", s.writes, before)
		if s.changes == changes {
			t.Error("after a restart the first state is news")
		}
	}
}

// A controller that starts while the hub is away must not take away what works.
func TestNothingIsTakenAwayWhileTheOthersAreUnknown(t *testing.T) {
	c1, c2 := pair(t)
	c1.web(0)
	settle(c1, c2)
	before := c2.endpointSlices()
	c2.unknown = true
	c2.restart()
	settle(c2)
	if _, ok := c2.r.Services(); ok {
		t.Error("services are told though the others are unknown")
	}
	if _, ok := c2.r.Exports(); !ok {
		t.Error("exports are known and not told")
	}
	if c2.imported() == nil || c2.endpointSlices() != before {
		t.Errorf("the import was taken away: %s", c2.endpointSlices())
	}
	c2.unknown = false
	c1.delete(c1.export())
	settle(c1, c2)
	if c2.imported() != nil {
		t.Error("the import stays after the others are known")
	}
}

// Before everything was read once, the exports are not told: half of them would look like an unexport to the others.
func TestExportsAreToldWholeOrNotAtAll(t *testing.T) {
	c1 := newSite(t, "c1")
	c1.web(0)
	if es, ok := c1.r.Exports(); ok {
		t.Errorf("told before anything was read: %v", es)
	}
	if _, err := c1.r.Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "bank", Name: "other"}}); err != nil {
		t.Fatal(err)
	}
	if es, ok := c1.r.Exports(); !ok || len(es) != 1 {
		t.Errorf("after the first reconciliation of another name: %v %v", es, ok)
	}
}

// Before the controller knows its slices, a namespace that is on one would be taken for one that is on none: the others
// would be told of an unexport, and a condition would lie.
func TestNothingIsToldBeforeTheSlicesAreKnown(t *testing.T) {
	c1 := newSite(t, "c1")
	c1.web(0)
	early := c1.slices
	c1.slices = nil
	c1.r = New(c1.client, c1.r.cfg)
	settle(c1)
	if es, ok := c1.r.Exports(); ok {
		t.Errorf("told: %v", es)
	}
	c1.wantCondition("Valid", "none")
	c1.slices = early
	c1.r.LocalChanged("shop") // of one namespace: the rest may still be unknown
	settle(c1)
	c1.wantCondition("Valid", "none")
	c1.r.LocalChanged()
	settle(c1)
	c1.wantCondition("Valid", "True Valid")
	if es, ok := c1.r.Exports(); !ok || len(es) != 1 {
		t.Errorf("not told: %v", es)
	}
}

func TestHandEditsAreUndone(t *testing.T) {
	c1 := newSite(t, "c1")
	c1.web(0)
	settle(c1)
	im := c1.imported()
	im.Spec.IPs, im.Spec.Ports = []string{"192.0.2.1"}, []mcs.ServicePort{{Port: 1}}
	c1.update(im)
	var list discoveryv1.EndpointSliceList
	if err := c1.client.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		if list.Items[i].Labels[discoveryv1.LabelManagedBy] == ManagedBy {
			list.Items[i].Endpoints[0].Addresses = []string{"192.0.2.1"}
			c1.update(&list.Items[i])
		}
	}
	settle(c1)
	wantEqual(t, "ips", c1.imported().Spec.IPs, []string{"10.9.255.1"})
	wantEqual(t, "EndpointSlices", c1.endpointSlices(), "shop/web from c1 IPv4 http=8080/TCP [10.9.1.1  true]")
}

func TestSomebodyElsesImportIsLeftAlone(t *testing.T) {
	c1 := newSite(t, "c1")
	c1.create(&mcs.ServiceImport{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: mcs.ServiceImportSpec{Type: mcs.Headless}})
	c1.web(0)
	settle(c1)
	c1.wantCondition("Ready", "False ForeignImport")
	wantEqual(t, "type", c1.imported().Spec.Type, mcs.Headless)
	wantEqual(t, "EndpointSlices", c1.endpointSlices(), "")
}

func TestManyPodsAreSpreadOverEndpointSlicesAndOneChangeWritesOne(t *testing.T) {
	c1, c2 := pair(t)
	var pods []string
	for i := range 200 {
		pods = append(pods, fmt.Sprintf("web-%d", i))
	}
	c1.web(0)
	c1.delete(&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-abcde"}})
	es := c1.endpoints("web", pods...)
	settle(c1, c2)
	lines := strings.Split(c2.endpointSlices(), "\n")
	if len(lines) != 4 || strings.Count(c2.endpointSlices(), "[") != 200 {
		t.Fatalf("got %d EndpointSlices with %d endpoints, want 4 with 200", len(lines), strings.Count(c2.endpointSlices(), "["))
	}
	before := c2.writes
	es.Endpoints = es.Endpoints[1:]
	c1.update(es)
	settle(c1, c2)
	wantEqual(t, "writes for one pod that went", c2.writes-before, 1)
}

func TestCleanupLeavesNothing(t *testing.T) {
	c1, c2 := pair(t)
	c1.web(0)
	c2.web(1)
	settle(c1, c2)
	if err := c1.r.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c1.imported() != nil || c1.endpointSlices() != "" || len(c1.export().Status.Conditions) != 0 {
		t.Errorf("left: %v %s %v", c1.imported(), c1.endpointSlices(), c1.export().Status.Conditions)
	}
	settle(c1)
	if c1.imported() != nil || len(c1.export().Status.Conditions) != 0 {
		t.Error("it came back")
	}
}

// The words of package discovery are the standard's.
func TestReasonsAreTheStandards(t *testing.T) {
	for got, want := range map[string]mcs.ServiceExportConditionReason{
		discovery.ReasonNoConflicts: mcs.ServiceExportReasonNoConflicts, discovery.ReasonPort: mcs.ServiceExportReasonPortConflict,
		discovery.ReasonType: mcs.ServiceExportReasonTypeConflict, discovery.ReasonSessionAffinity: mcs.ServiceExportReasonSessionAffinityConflict,
		discovery.ReasonSessionAffinityConfig: mcs.ServiceExportReasonSessionAffinityConfigConflict,
		discovery.ReasonLabels:                mcs.ServiceExportReasonLabelsConflict, discovery.ReasonAnnotations: mcs.ServiceExportReasonAnnotationsConflict,
		discovery.ReasonInternalTrafficPolicy: mcs.ServiceExportReasonInternalTrafficPolicyConflict,
		discovery.ReasonTrafficDistribution:   mcs.ServiceExportReasonTrafficDistributionConflict,
		discovery.ReasonIPFamily:              mcs.ServiceExportReasonIPFamilyConflict,
		discovery.ReasonValid:                 mcs.ServiceExportReasonValid, discovery.ReasonNoService: mcs.ServiceExportReasonNoService,
		discovery.ReasonInvalidServiceType: mcs.ServiceExportReasonInvalidServiceType, discovery.ReasonExported: mcs.ServiceExportReasonExported,
		discovery.ReasonPending: mcs.ServiceExportReasonPending,
	} {
		if got != string(want) {
			t.Errorf("%q, the standard says %q", got, want)
		}
	}
}

// The API server gives an empty list back as none. If that counted as a difference, every look would write.
func TestEmptyListsAreNoDifference(t *testing.T) {
	have := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}}
	want := have.DeepCopy()
	want.Endpoints, want.Ports = []discoveryv1.Endpoint{}, []discoveryv1.EndpointPort{}
	if !same(have, want) {
		t.Error("an empty list and none differ")
	}
	want.Endpoints = append(want.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.9.1.1"}})
	if same(have, want) {
		t.Error("one endpoint and none are the same")
	}
}

// TestClustersWeighTheirEndpoints: a number on the ServiceExport reaches every cluster, and goes with the number.
func TestClustersWeighTheirEndpoints(t *testing.T) {
	c1, c2 := pair(t)
	c1.web(0)
	for text, want := range map[string]int{"5": 5, "1": 0, "0": 0, "-3": 0, "many": 0, "1001": 0, "": 0} {
		e := c1.export()
		e.Annotations = map[string]string{WeightAnnotation: text}
		c1.update(e)
		settle(c1, c2)
		services, _ := c2.r.Services()
		if len(services) != 1 || len(services[0].Endpoints) != 1 || services[0].Endpoints[0].Weight != want {
			t.Errorf("%q: services of the other cluster: %+v, want weight %d", text, services, want)
		}
	}
}
