package controller

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/policy"
)

// cacheOptions keeps the cache lean: of the many pods only what facts are made of, of the ConfigMaps only our settings.
func cacheOptions(namespace string) cache.Options {
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:         {Transform: leanPod},
			&corev1.Node{}:        {Transform: leanNode},
			&appsv1.StatefulSet{}: {Transform: leanSet},
			&corev1.ConfigMap{}: {
				Namespaces: map[string]cache.Config{namespace: {}},
				Field:      fields.OneTermEqualSelector("metadata.name", SettingsMap),
			},
		},
	}
}

// leanPod keeps of a pod what podFact reads.
func leanPod(o any) (any, error) {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	out := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion, Labels: p.Labels,
		},
		Spec:   corev1.PodSpec{NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork},
		Status: corev1.PodStatus{Phase: p.Status.Phase, PodIPs: p.Status.PodIPs},
	}
	if v, ok := p.Annotations[roster.AddressAnnotation]; ok {
		out.Annotations = map[string]string{roster.AddressAnnotation: v}
	}
	if owner := metav1.GetControllerOf(p); owner != nil && owner.Kind == "StatefulSet" {
		out.OwnerReferences = []metav1.OwnerReference{{Kind: owner.Kind, Controller: owner.Controller}}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady || c.Type == roster.ConditionType {
			out.Status.Conditions = append(out.Status.Conditions, corev1.PodCondition{
				Type: c.Type, Status: c.Status, Reason: c.Reason, Message: c.Message,
			})
		}
	}
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		var named []corev1.ContainerPort
		for _, port := range c.Ports {
			if port.Name != "" {
				named = append(named, port)
			}
		}
		if len(named) > 0 {
			out.Spec.Containers = append(out.Spec.Containers, corev1.Container{Ports: named})
		}
	}
	return out, nil
}

// leanNode keeps of a node what nodeFact reads.
func leanNode(o any) (any, error) {
	n, ok := o.(*corev1.Node)
	if !ok {
		return o, nil
	}
	out := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, UID: n.UID, ResourceVersion: n.ResourceVersion, Labels: n.Labels},
		Spec:       corev1.NodeSpec{Unschedulable: n.Spec.Unschedulable, PodCIDRs: n.Spec.PodCIDRs},
		Status:     corev1.NodeStatus{Addresses: n.Status.Addresses},
	}
	if mark, ok := n.Annotations[fleet.DrillMark]; ok {
		out.Annotations = map[string]string{fleet.DrillMark: mark}
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			out.Status.Conditions = []corev1.NodeCondition{{Type: c.Type, Status: c.Status}}
		}
	}
	return out, nil
}

// leanSet keeps of a StatefulSet what setFact reads.
func leanSet(o any) (any, error) {
	s, ok := o.(*appsv1.StatefulSet)
	if !ok {
		return o, nil
	}
	out := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, UID: s.UID, ResourceVersion: s.ResourceVersion},
		Spec:       appsv1.StatefulSetSpec{Replicas: s.Spec.Replicas, ServiceName: s.Spec.ServiceName, Ordinals: s.Spec.Ordinals},
	}
	out.Spec.Template.Spec.HostNetwork = s.Spec.Template.Spec.HostNetwork
	if v, ok := s.Spec.Template.Labels[roster.ExcludeLabel]; ok {
		out.Spec.Template.Labels = map[string]string{roster.ExcludeLabel: v}
	}
	return out, nil
}

func setFact(s *appsv1.StatefulSet) roster.Set {
	f := roster.Set{Namespace: s.Namespace, Name: s.Name, Service: s.Spec.ServiceName, Count: 1,
		Excluded: s.Spec.Template.Spec.HostNetwork || s.Spec.Template.Labels[roster.ExcludeLabel] == "true"}
	if s.Spec.Replicas != nil {
		f.Count = int(max(0, *s.Spec.Replicas))
	}
	if s.Spec.Ordinals != nil {
		f.First = int(s.Spec.Ordinals.Start)
	}
	return f
}

func applySet(f *roster.Facts, o client.Object, gone bool) bool {
	s, ok := o.(*appsv1.StatefulSet)
	if !ok {
		return false
	}
	key := s.Namespace + "/" + s.Name
	old, had := f.Sets[key]
	if gone {
		delete(f.Sets, key)
		return had
	}
	now := setFact(s)
	f.Sets[key] = now
	return !had || old != now
}

func podFact(p *corev1.Pod) *roster.Pod {
	f := &roster.Pod{
		UID: string(p.UID), Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName, Labels: p.Labels,
		StatefulSet: metav1.GetControllerOf(p) != nil && metav1.GetControllerOf(p).Kind == "StatefulSet",
		HostNetwork: p.Spec.HostNetwork,
		Finished:    p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
		Annotation:  p.Annotations[roster.AddressAnnotation],
	}
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			f.PodIPs = append(f.PodIPs, a)
		}
	}
	for _, c := range p.Status.Conditions {
		switch c.Type {
		case corev1.PodReady:
			f.Ready = c.Status == corev1.ConditionTrue
		case roster.ConditionType:
			f.Condition = roster.Condition{Status: string(c.Status), Reason: c.Reason, Message: c.Message}
		}
	}
	for _, c := range p.Spec.Containers {
		for _, port := range c.Ports {
			proto := fleet.Protocol(port.Protocol)
			if proto == "" {
				proto = fleet.TCP
			}
			f.Ports = append(f.Ports, policy.NamedPort{Name: port.Name, Protocol: proto, Port: uint16(port.ContainerPort)})
		}
	}
	return f
}

func nodeFact(n *corev1.Node) roster.Node {
	f := roster.Node{Labels: n.Labels, Schedulable: !n.Spec.Unschedulable}
	for _, text := range n.Spec.PodCIDRs {
		if p, err := netip.ParsePrefix(text); err == nil {
			f.PodCIDRs = append(f.PodCIDRs, p)
		}
	}
	for _, na := range n.Status.Addresses {
		if a, err := netip.ParseAddr(na.Address); err == nil { // others are host names
			f.Addrs = append(f.Addrs, a)
		}
	}
	for _, c := range n.Status.Conditions {
		f.Ready = f.Ready || (c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue)
	}
	return f
}

// watch feeds the board from this cluster's API server, and returns when everything there is has been read once.
func watch(ctx context.Context, c cache.Cache, namespace string, b *board) error {
	drills := cordons{}
	feeds := []struct {
		kind  client.Object
		apply func(f *roster.Facts, o client.Object, gone bool) bool
	}{
		{&corev1.Pod{}, applyPod},
		{&corev1.Node{}, func(f *roster.Facts, o client.Object, gone bool) bool {
			return applyNode(f, drills.let(o, gone, time.Now()), gone)
		}},
		{&corev1.Namespace{}, applyNamespace},
		{&appsv1.StatefulSet{}, applySet},
		{&networkingv1.NetworkPolicy{}, applyPolicy},
		{&corev1.Service{}, applyService},
		{&corev1.ConfigMap{}, func(f *roster.Facts, o client.Object, gone bool) bool {
			cm, ok := o.(*corev1.ConfigMap)
			if !ok || cm.Namespace != namespace || cm.Name != SettingsMap {
				return false
			}
			was := f.Leaving
			f.Leaving = !gone && cm.Data["leaving"] == "true"
			return was != f.Leaving
		}},
	}
	for _, feed := range feeds {
		inf, err := c.GetInformer(ctx, feed.kind)
		if err != nil {
			return fmt.Errorf("watch %T: %w", feed.kind, err)
		}
		put := func(o any, gone bool) {
			if t, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = t.Obj
			}
			obj, ok := o.(client.Object)
			if !ok {
				return
			}
			b.edit(func(f *roster.Facts) bool { return feed.apply(f, obj, gone) })
			if d := marked(obj); d > 0 && !gone { // looked at again when the drill must be over
				time.AfterFunc(d+time.Second, func() {
					var n corev1.Node
					if c.Get(ctx, client.ObjectKeyFromObject(obj), &n) == nil {
						b.edit(func(f *roster.Facts) bool { return feed.apply(f, &n, false) })
					}
				})
			}
		}
		reg, err := inf.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { put(o, false) },
			UpdateFunc: func(_, o any) { put(o, false) },
			DeleteFunc: func(o any) { put(o, true) },
		})
		if err != nil {
			return fmt.Errorf("watch %T: %w", feed.kind, err)
		}
		// The handler's own sync, not the informer's: the facts must have arrived on the board.
		if !toolscache.WaitForCacheSync(ctx.Done(), reg.HasSynced) {
			return fmt.Errorf("watch %T: %w", feed.kind, ctx.Err())
		}
	}
	return nil
}

// cordons are the nodes that a drill has cordoned, with the time until which that counts: a drill that was killed does
// not keep a gateway from relaying for ever. The drill says for how long, and this replica's clock counts from when it
// first sees it, so that no two clocks are compared.
type cordons map[string]time.Time

// let returns the node as it is to be seen: one whose drill must be over is not cordoned.
func (c cordons) let(o client.Object, gone bool, now time.Time) client.Object {
	d := marked(o)
	if d == 0 || gone {
		delete(c, o.GetName())
		return o
	}
	until, seen := c[o.GetName()]
	if !seen {
		until = now.Add(d)
		c[o.GetName()] = until
	}
	n, ok := o.(*corev1.Node)
	if !ok || now.Before(until) {
		return o
	}
	n = n.DeepCopy()
	n.Spec.Unschedulable = false
	return n
}

// marked is for how long a drill has cordoned a node; 0: none has.
func marked(o client.Object) time.Duration {
	if _, ok := o.(*corev1.Node); !ok {
		return 0
	}
	mark, ok := o.GetAnnotations()[fleet.DrillMark]
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(mark)
	if err != nil || d <= 0 || d > longestDrill {
		return longestDrill
	}
	return d
}

// longestDrill bounds what a drill's mark says.
const longestDrill = 6 * time.Minute

func applyPod(f *roster.Facts, o client.Object, gone bool) bool {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return false
	}
	key := p.Namespace + "/" + p.Name
	old := f.Pods[key]
	if gone {
		if old != nil && old.UID == string(p.UID) {
			delete(f.Pods, key)
			return true
		}
		return false
	}
	now := podFact(p)
	if reflect.DeepEqual(old, now) {
		return false
	}
	f.Pods[key] = now
	return true
}

func applyNode(f *roster.Facts, o client.Object, gone bool) bool {
	n, ok := o.(*corev1.Node)
	if !ok {
		return false
	}
	old, had := f.Nodes[n.Name]
	if gone {
		delete(f.Nodes, n.Name)
		delete(f.Reports, n.Name)
		delete(f.Heard, n.Name)
		return had
	}
	now := nodeFact(n)
	if had && reflect.DeepEqual(old, now) {
		return false
	}
	f.Nodes[n.Name] = now
	return true
}

func applyNamespace(f *roster.Facts, o client.Object, gone bool) bool {
	old, had := f.Namespaces[o.GetName()]
	if gone {
		delete(f.Namespaces, o.GetName())
		return had
	}
	if had && reflect.DeepEqual(old, o.GetLabels()) {
		return false
	}
	f.Namespaces[o.GetName()] = o.GetLabels()
	return true
}

// applyService notes the services that every pod needs: the API server and the cluster's DNS.
func applyService(f *roster.Facts, o client.Object, gone bool) bool {
	s, ok := o.(*corev1.Service)
	if !ok {
		return false
	}
	api := s.Namespace == metav1.NamespaceDefault && s.Name == "kubernetes"
	dns := s.Namespace == metav1.NamespaceSystem && s.Labels["k8s-app"] == "kube-dns"
	key := s.Namespace + "/" + s.Name
	old, had := f.Needed[key]
	if gone || !api && !dns {
		delete(f.Needed, key)
		return had
	}
	var now []netip.Addr
	for _, text := range s.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(text); err == nil {
			now = append(now, a)
		}
	}
	f.Needed[key] = now
	return !had || !slices.Equal(old, now)
}

func applyPolicy(f *roster.Facts, o client.Object, gone bool) bool {
	np, ok := o.(*networkingv1.NetworkPolicy)
	if !ok {
		return false
	}
	rest := slices.DeleteFunc(slices.Clone(f.Policies), func(p *networkingv1.NetworkPolicy) bool {
		return p.Namespace == np.Namespace && p.Name == np.Name
	})
	if !gone {
		rest = append(rest, np)
	}
	f.Policies = rest
	return true
}
