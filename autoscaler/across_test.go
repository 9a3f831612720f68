package autoscaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/hub/place"
	"seaway.dev/seaway/scale/pilot"
	"seaway.dev/seaway/scale/placement"
	record1 "seaway.dev/seaway/scale/record"
)

// member is a cluster of the slice whose pods take their time: eight seconds where a node has room, two minutes where a
// node of four has to be made first.
type member struct {
	*cluster
	name  string
	pods  []*madePod // oldest first
	nodes []int      // for how many pods each takes
	made  int
	mute  bool // nobody hears it
	still bool // it does nothing, though it speaks
}

type madePod struct {
	object *corev1.Pod
	at     time.Time
	node   int // -1: none yet
	ready  bool
}

// fleetOf are clusters whose clients are spread evenly over all ready pods.
type fleetOf struct {
	t       *testing.T
	members []*member
	rate    float64
	lag     int                          // rounds that words travel
	way     []map[string][]fleet.Scaling // what is on its way, oldest first
	sticky  bool                         // half of the clients of each stay with it
}

func newFleet(t *testing.T, rate float64, members ...*member) *fleetOf {
	f := &fleetOf{t: t, rate: rate, members: members}
	for _, m := range members {
		m.say = func() (reading, error) { return f.read(m), nil }
		if err := m.client.DeleteAllOf(t.Context(), &corev1.Node{}); err != nil {
			t.Fatal(err)
		}
		for i := range m.nodes {
			m.addNode(i)
		}
		for range m.replicas() {
			m.addPod(-time.Minute)
		}
		m.grow()
	}
	return f
}

func newMember(t *testing.T, name, price string, nodes ...int) *member {
	return &member{name: name, nodes: nodes, cluster: newCluster(t, func(s *v1alpha1.AutoscalerSpec) {
		q := resource.MustParse(price)
		s.Across, s.Price.PodHour = v1alpha1.AcrossSlice, &q
	})}
}

// fullAndFree are two clusters with four cores of load: the nodes of c1 are full, c2 has room, at that price; c1's is 1.
func fullAndFree(t *testing.T, price string) (f *fleetOf, c1, c2 *member) {
	c1, c2 = newMember(t, "c1", "1", 4), newMember(t, "c2", price, 40)
	return newFleet(t, 200, c1, c2), c1, c2
}

func (m *member) ready() (n int) {
	for _, p := range m.pods {
		if p.ready {
			n++
		}
	}
	return n
}

func (f *fleetOf) ready() (n int) {
	for _, m := range f.members {
		n += m.ready()
	}
	return n
}

// read is what m's Prometheus says. A request takes 20 core-ms, so a pod serves fifty a second.
func (f *fleetOf) read(m *member) reading {
	rate := f.rate * float64(m.ready()) / math.Max(1, float64(f.ready()))
	if f.sticky {
		rate = f.rate / float64(len(f.members))
	}
	busy := math.Min(rate*0.02, float64(m.ready()))
	return reading{rate: rate, busy: busy, bad: math.Max(0, rate-busy/0.02), inFlight: math.NaN()}
}

func (m *member) addNode(i int) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", i), CreationTimestamp: metav1.Now()}, Status: corev1.NodeStatus{
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		Allocatable: corev1.ResourceList{corev1.ResourceCPU: *resource.NewQuantity(int64(m.nodes[i]), resource.DecimalSI),
			corev1.ResourcePods: resource.MustParse("110"), corev1.ResourceMemory: resource.MustParse("64Gi")}}}
	if err := m.client.Create(m.t.Context(), n); err != nil {
		m.t.Fatal(err)
	}
}

func (m *member) addPod(age time.Duration) {
	m.made++
	at := time.Now().Add(age)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("web-", m.made), UID: types.UID(fmt.Sprint(m.made)),
		Labels: map[string]string{"app": "web"}, CreationTimestamp: metav1.NewTime(at)},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web:1", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}}}}}
	if err := m.client.Create(m.t.Context(), p); err != nil {
		m.t.Fatal(err)
	}
	m.pods = append(m.pods, &madePod{object: p, at: at, node: -1})
}

// grow does what the cluster's own controllers, scheduler and kubelets do.
func (m *member) grow() {
	for len(m.pods) < m.replicas() {
		m.addPod(0)
	}
	for len(m.pods) > m.replicas() {
		last := m.pods[len(m.pods)-1]
		m.pods = m.pods[:len(m.pods)-1]
		if err := m.client.Delete(m.t.Context(), last.object); err != nil {
			m.t.Fatal(err)
		}
	}
	used := make([]int, len(m.nodes))
	for _, p := range m.pods {
		if p.node >= 0 {
			used[p.node]++
		}
	}
	for _, p := range m.pods {
		for i := 0; p.node < 0 && i < len(m.nodes); i++ {
			if used[i] < m.nodes[i] {
				used[i]++
				p.node = i
				m.put(p)
			}
		}
		if p.node < 0 && time.Since(p.at) >= 2*time.Minute {
			m.nodes, used = append(m.nodes, 4), append(used, 1)
			p.node = len(m.nodes) - 1
			m.addNode(p.node)
			m.put(p)
		}
		if p.node >= 0 && !p.ready && time.Since(p.at) >= 8*time.Second {
			p.ready = true
			m.put(p)
		}
	}
}

func (m *member) put(p *madePod) {
	p.object.Spec.NodeName = fmt.Sprint("n", p.node)
	p.object.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
	if p.ready {
		p.object.Status.Conditions = append(p.object.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
	}
	for _, write := range []func(context.Context, client.Object) error{
		func(ctx context.Context, o client.Object) error {
			c := o.DeepCopyObject().(client.Object)
			return m.client.Update(ctx, c)
		},
		func(ctx context.Context, o client.Object) error {
			c := o.DeepCopyObject().(*corev1.Pod)
			c.ResourceVersion = ""
			return m.client.Status().Update(ctx, c)
		},
	} {
		p.object.ResourceVersion = ""
		if err := write(m.t.Context(), p.object); err != nil {
			m.t.Fatal(err)
		}
	}
}

// relay does what the controllers do: everybody hears what everybody says.
func (f *fleetOf) relay() {
	said := map[string][]fleet.Scaling{}
	for _, m := range f.members {
		cm := &corev1.ConfigMap{}
		if err := m.client.Get(f.t.Context(), client.ObjectKey{Namespace: place.System, Name: fleet.ScalingSaid}, cm); err != nil || m.mute {
			continue
		}
		var words []fleet.Scaling
		if err := json.Unmarshal([]byte(cm.Data[fleet.ScalingKey]), &words); err != nil {
			f.t.Fatal(err)
		}
		said[m.name] = words
	}
	if f.way = append(f.way, said); len(f.way) <= f.lag {
		return
	}
	said, f.way = f.way[0], f.way[1:]
	for _, m := range f.members {
		if m.mute {
			continue
		}
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: place.System, Name: fleet.ScalingHeard}}
		if err := m.client.Get(f.t.Context(), client.ObjectKeyFromObject(cm), cm); err != nil {
			if err := m.client.Create(f.t.Context(), cm); err != nil {
				f.t.Fatal(err)
			}
		}
		h := fleet.Heard{Cluster: m.name, Words: map[string][]fleet.Scaling{}}
		for name, words := range said {
			if name != m.name {
				h.Words[name] = words
			}
		}
		if f.muted() {
			continue // who is silent is not unsaid: the last word stands
		}
		text, _ := json.Marshal(h)
		if cm.Data[fleet.ScalingKey] == string(text) {
			continue
		}
		cm.Data = map[string]string{fleet.ScalingKey: string(text)}
		if err := m.client.Update(f.t.Context(), cm); err != nil {
			f.t.Fatal(err)
		}
	}
}

// lose takes away the nodes of a member, and with them its pods.
func (f *fleetOf) lose(m *member) {
	var nodes corev1.NodeList
	if err := m.client.List(f.t.Context(), &nodes); err != nil {
		f.t.Fatal(err)
	}
	for i := range nodes.Items {
		nodes.Items[i].Status.Conditions[0].Status = corev1.ConditionUnknown
		if err := m.client.Status().Update(f.t.Context(), &nodes.Items[i]); err != nil {
			f.t.Fatal(err)
		}
	}
	for _, p := range m.pods {
		if p.node >= 0 {
			p.ready, p.at = false, time.Now().Add(time.Hour)
			m.put(p)
		}
	}
	for i := range m.nodes {
		m.nodes[i] = 0
	}
}

func (f *fleetOf) muted() bool {
	for _, m := range f.members {
		if m.mute {
			return true
		}
	}
	return false
}

// pass lets d go by.
func (f *fleetOf) pass(d, each time.Duration) {
	for range int(d / each) {
		for _, m := range f.members {
			before := m.replicas()
			m.loop.round(f.t.Context(), time.Now())
			if m.still {
				f.reset(m, before)
			}
			m.grow()
		}
		f.relay()
		time.Sleep(each)
	}
}

// reset undoes what a member's role did.
func (f *fleetOf) reset(m *member, n int) {
	d := m.loop.targets[webKey].object()
	if err := m.client.Get(f.t.Context(), webKey, d); err != nil {
		f.t.Fatal(err)
	}
	if m.replicas() != n {
		if err := m.client.Patch(f.t.Context(), d, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n))); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *fleetOf) tell(when string) {
	for _, m := range f.members {
		f.t.Logf("%s: %s has %d (%d ready): %s", when, m.name, m.replicas(), m.ready(), m.get().Status.Place)
	}
}

// TestRoomIsTakenOnce: c1 has room for a few pods more. A jump takes that room, and what is missing is ordered in c2; also
// in the rounds in which the nodes are not looked at again after the pods came, or cannot be.
func TestRoomIsTakenOnce(t *testing.T) {
	for _, tc := range []struct {
		odd   time.Duration
		blind bool
	}{{0, false}, {time.Second, false}, {0, true}} {
		synctest.Test(t, func(t *testing.T) {
			c1, c2 := newMember(t, "c1", "1", 5), newMember(t, "c2", "1", 40)
			f := newFleet(t, 200, c1, c2)
			f.pass(10*time.Minute, 10*time.Second)
			f.pass(4*time.Second+tc.odd, time.Second)
			f.tell("before")
			if tc.blind {
				c1.loop.client = interceptor.NewClient(c1.loop.client.(client.WithWatch), interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
					if _, ok := list.(*corev1.NodeList); ok && len(opts) > 0 { // for the room on them
						return errors.New("a test")
					}
					return c.List(ctx, list, opts...)
				}})
			}
			f.rate = 600
			f.pass(6*time.Second, time.Second)
			f.tell("6 s after the jump")
			if c1.replicas() != 5 || c2.replicas() < 6 {
				t.Errorf("%+v: c1 has %d pods and room for 5, c2 has %d", tc, c1.replicas(), c2.replicas())
			}
		})
	}
}

// TestJumpGoesWhereItIsReadySoonest: c1 is cheap and its nodes are full, c2 is dear and has room. A jump is placed in c2,
// and explained; in calm the pods are in c1 again, and never are fewer ready than the load needs.
func TestJumpGoesWhereItIsReadySoonest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c1, c2 := fullAndFree(t, "3")
		f.pass(4*time.Minute, 10*time.Second)
		f.tell("before")
		before1, before2 := c1.replicas(), c2.replicas()
		if before1+before2 < 5 || c2.get().Status.Place == "" {
			t.Fatalf("%d and %d pods", before1, before2)
		}
		f.rate = 500
		f.pass(10*time.Second, time.Second)
		f.tell("10 s after the jump")
		if c1.replicas() != before1 || c2.replicas() < before2+3 {
			t.Fatalf("c1 from %d to %d, c2 from %d to %d pods", before1, c1.replicas(), before2, c2.replicas())
		}
		f.pass(20*time.Second, time.Second)
		if n := f.ready(); n < 10 {
			t.Errorf("%d pods ready for 10 cores of load half a minute after the jump", n)
		}
		var r record1.Record
		if err := json.Unmarshal([]byte(c2.get().Status.Records[0]), &r); err != nil || r.Place == nil || len(r.Place.Shares) != 2 || r.Why != "soonest" {
			t.Errorf("record %s: %v", c2.get().Status.Records[0], err)
		}
		if text := r.String(); !strings.Contains(text, "soonest in") || !strings.Contains(text, "c1") {
			t.Errorf("said: %s", text)
		}
		atJump := c2.replicas()
		for range 6 {
			f.pass(6*time.Minute, 20*time.Second)
			if n := f.ready(); n < 10 {
				f.tell("too few")
				t.Fatalf("%d pods ready for 10 cores of load", n)
			}
		}
		f.tell("in calm")
		if c2.replicas() >= atJump/2 || c1.replicas() <= before1 {
			t.Errorf("in calm c1 has %d pods, c2 %d; after the jump %d", c1.replicas(), c2.replicas(), atJump)
		}
	})
}

// TestWhoIsSilentIsCountedOut: c1's nodes are full and c2 has room, so c2 takes c1's jump; when nothing is heard of c2 any
// more, c1 covers itself, and c2 what it serves. With the words back they divide again.
func TestWhoIsSilentIsCountedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c1, c2 := fullAndFree(t, "1")
		f.sticky = true
		f.pass(4*time.Minute, 10*time.Second)
		before := c1.replicas()
		c2.mute = true
		f.pass(30*time.Second, 3*time.Second)
		f.rate = 500
		f.pass(20*time.Second, time.Second)
		f.tell("silent")
		if c1.replicas() < before+2 || !strings.Contains(c1.get().Status.Place, "c2 counted out: it is silent") {
			t.Errorf("c1 had %d pods, has %d: %s", before, c1.replicas(), c1.get().Status.Place)
		}
		if c2.replicas() < 5 {
			t.Errorf("c2 has %d pods: it does not cover itself", c2.replicas())
		}
		c2.mute = false
		f.pass(16*time.Second, time.Second)
		if !strings.Contains(c1.get().Status.Place, "c2 ") || strings.Contains(c1.get().Status.Place, "counted out") {
			t.Errorf("heard again: %s", c1.get().Status.Place)
		}
	})
}

// TestWhoDoesNothingIsCountedOut: c2 speaks, and orders nothing.
func TestWhoDoesNothingIsCountedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c1, c2 := fullAndFree(t, "1")
		f.pass(4*time.Minute, 10*time.Second)
		before := c1.replicas()
		c2.still = true
		f.rate = 500
		f.pass(8*time.Second, time.Second)
		if n := c1.replicas(); n > 5 {
			t.Errorf("c1, which has room for 4, had %d pods and has %d before c2 was given its time", before, n)
		}
		f.pass(22*time.Second, time.Second)
		f.tell("still")
		if c1.replicas() < 7 || !strings.Contains(c1.get().Status.Place, "c2 counted out: it was asked for pods and orders none") {
			t.Errorf("c1 had %d pods, has %d: %s", before, c1.replicas(), c1.get().Status.Place)
		}
	})
}

// TestWhoOrdersIsNotDeaf: c2 is asked for more all the time. As long as it orders some it is counted in.
func TestWhoOrdersIsNotDeaf(t *testing.T) {
	a, now := across{}, time.Unix(1e9, 0)
	has := 4
	for second := range 60 {
		if second < 40 && second%4 == 0 {
			has++
		}
		set(&a.beats, "c2", beat{count: second})
		plan := placement.Plan{Total: 30, Shares: []placement.Share{{Cluster: "c1"}, {Cluster: "c2", Was: has, Pods: 20, Why: placement.Soonest}}}
		a.follow(now, &plan, &world{}, pilot.Demand{})
		if deaf := now.Before(a.deaf["c2"]); deaf != (second >= 46) {
			t.Fatalf("second %d: counted out: %v", second, deaf)
		}
		now = now.Add(time.Second)
	}
}

// TestWhoIsCheapMayBeDeaf: c2 is asked for pods that the total lacks, for it is cheapest; who orders none is counted out as
// well when there is no hurry. What is moved for its price has time.
func TestWhoIsCheapMayBeDeaf(t *testing.T) {
	for why, want := range map[string]bool{placement.Cheapest: true, placement.Moved: false} {
		a, now := across{}, time.Unix(1e9, 0)
		for second := range 15 {
			set(&a.beats, "c2", beat{count: second})
			plan := placement.Plan{Total: 12, Shares: []placement.Share{{Cluster: "c1"}, {Cluster: "c2", Was: 4, Pods: 6, Why: why}}}
			a.follow(now, &plan, &world{}, pilot.Demand{})
			now = now.Add(time.Second)
		}
		if deaf := now.Before(a.deaf["c2"]); deaf != want {
			t.Errorf("%s: counted out: %v", why, deaf)
		}
	}
}

// TestWhatGrewMayShrink: pods that were moved for their price and had to be given back say that the load does not follow,
// and nothing is moved for an hour. Pods that were ordered for more load and are given back when it is gone say nothing.
func TestWhatGrewMayShrink(t *testing.T) {
	for why, want := range map[string]bool{placement.Cheapest: true, placement.Moved: false} {
		a, now := across{}, time.Unix(1e9, 0)
		for _, share := range []placement.Share{{Cluster: "c2", Was: 4, Pods: 6, Why: why}, {Cluster: "c2", Was: 6, Pods: 4, Why: placement.Returned}, {Cluster: "c2", Was: 4, Pods: 4, Why: placement.Kept}} {
			a.follow(now, &placement.Plan{Total: share.Pods, Shares: []placement.Share{share}}, &world{}, pilot.Demand{})
			now = now.Add(12 * time.Minute)
		}
		if calm := now.Sub(a.rose) >= lately; calm != want {
			t.Errorf("%s: calm: %v", why, calm)
		}
	}
}

// TestSlowGrowthIsNoCalm: calm is that the total has not risen for five minutes, however slowly.
func TestSlowGrowthIsNoCalm(t *testing.T) {
	a, now := across{}, time.Unix(1e9, 0)
	for second := range 1200 {
		total := 20 + min(second, 800)/20
		a.follow(now, &placement.Plan{Total: total}, &world{}, pilot.Demand{})
		if calm := now.Sub(a.rose) >= lately; calm && second < 900 || !calm && second > 1100 {
			t.Fatalf("second %d, %d pods wanted: calm: %v", second, total, calm)
		}
		now = now.Add(time.Second)
	}
}

// TestRoomThatIsGoneIsNews: how much room there is may wait for the next beat, that there is none may not.
func TestRoomThatIsGoneIsNews(t *testing.T) {
	if !alike(fleet.Scaling{Room: 9, Beat: 1}, fleet.Scaling{Room: 5, Beat: 2}) {
		t.Error("less room is news")
	}
	if alike(fleet.Scaling{Room: 1}, fleet.Scaling{}) {
		t.Error("that there is no room is no news")
	}
}

// TestHearsAgain: an Autoscaler that has not divided its pods for a while hears what was said meanwhile.
func TestHearsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c1, _ := fullAndFree(t, "1")
		f.pass(4*time.Minute, 10*time.Second)
		for _, across := range []v1alpha1.AutoscalerAcross{"", v1alpha1.AcrossSlice} {
			c1.set(func(as *v1alpha1.Autoscaler) { as.Spec.Across = across })
			for range 2 {
				c1.loop.round(t.Context(), time.Now())
				time.Sleep(time.Second)
			}
		}
		if text := c1.loop.targets[webKey].across.text; !strings.Contains(text, "c2 ") {
			t.Errorf("c1 does not hear c2: %s", text)
		}
	})
}

// TestEditSilencesNobody: a pilot that begins anew, since its spec was edited, knows at once what is wanted.
func TestEditSilencesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c1, _ := fullAndFree(t, "1")
		f.pass(4*time.Minute, 10*time.Second)
		f.pass(2*time.Second, time.Second) // no sample is due
		c1.set(func(as *v1alpha1.Autoscaler) { as.Spec.Max++ })
		c1.loop.round(t.Context(), time.Now())
		if a := &c1.loop.targets[webKey].across; a.word == nil || a.plan == nil {
			t.Errorf("c1 takes no part: %s", a.text)
		}
	})
}

// TestLateWordsDoNotFlutter: words take nine seconds, while the load swings and is noisy: neither cluster orders what it has
// just given up, or gives up what it has just ordered, because it heard old numbers of the other.
func TestLateWordsDoNotFlutter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c1, c2 := newMember(t, "c1", "1", 30), newMember(t, "c2", "1", 40)
		f := newFleet(t, 600, c1, c2)
		f.lag = 9
		f.pass(12*time.Minute, 10*time.Second)
		noise := rand.New(rand.NewPCG(1, 2))
		had, rising, turns := map[*member]int{}, map[*member]bool{}, 0
		for second := range 320 {
			f.rate = 600 * (1 + 0.4*math.Sin(float64(second)/50)) * (0.95 + 0.1*noise.Float64())
			f.pass(time.Second, time.Second)
			for _, m := range f.members {
				n := m.replicas()
				if before := had[m]; before > 0 && n != before {
					if rising[m] != (n > before) {
						turns++
					}
					rising[m] = n > before
				}
				had[m] = n
			}
			if need := f.rate * 0.02; float64(f.ready()) < need {
				t.Fatalf("second %d: %d pods ready for %.1f cores of load", second, f.ready(), need)
			}
		}
		if turns > 3 {
			t.Errorf("%d times the other way", turns)
		}
	})
}

// TestLoadThatStaysHome: clients stay with their own cluster. c1's jump is placed in c2, which helps nobody: after a minute
// c1 covers itself.
func TestLoadThatStaysHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c1, _ := fullAndFree(t, "1")
		f.sticky = true
		f.pass(4*time.Minute, 10*time.Second)
		f.rate = 500
		f.pass(30*time.Second, time.Second)
		f.tell("jump")
		f.pass(4*time.Minute, 5*time.Second)
		f.tell("later")
		if c1.ready() < 5 || !strings.Contains(c1.get().Status.Place, "its load does not go to others' pods") {
			t.Errorf("c1 has %d pods ready for 5 cores of load: %s", c1.ready(), c1.get().Status.Place)
		}
	})
}

// TestAcrossIsAsked: without spec.across nothing is said, and words that lie about change nothing.
func TestAcrossIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c1, c2 := fullAndFree(t, "1")
		c1.set(func(as *v1alpha1.Autoscaler) { as.Spec.Across = "" })
		f.pass(4*time.Minute, 10*time.Second)
		cm := &corev1.ConfigMap{}
		if err := c1.client.Get(t.Context(), client.ObjectKey{Namespace: place.System, Name: fleet.ScalingSaid}, cm); err == nil {
			t.Errorf("c1 says %v", cm.Data)
		}
		before := c1.replicas()
		f.rate = 500
		f.pass(10*time.Second, time.Second)
		if s := c1.get().Status; c1.replicas() <= before || s.Place != "" {
			t.Errorf("c1 had %d pods, has %d: %q", before, c1.replicas(), s.Place)
		}
		if s := c2.get().Status; strings.Contains(s.Place, "c1") {
			t.Errorf("c2 divides with c1, which does not: %q", s.Place)
		}
	})
}

// TestReadThatFailsMovesNothing: c1's jump is placed in c2. That c1's metrics, or its cluster, are not seen for a few seconds
// has neither order pods; when it lasts, c1 covers itself.
func TestReadThatFailsMovesNothing(t *testing.T) {
	for name, fail := range map[string]func(c1 *member) (mend func()){
		"metrics": func(c1 *member) func() {
			say := c1.say
			c1.say = func() (reading, error) { return reading{}, errors.New("a test") }
			return func() { c1.say = say }
		},
		"cluster": func(c1 *member) func() {
			whole := c1.loop.client
			c1.loop.client = interceptor.NewClient(whole.(client.WithWatch), interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
				if _, ok := list.(*corev1.PodList); ok {
					return errors.New("a test")
				}
				return c.List(ctx, list, opts...)
			}})
			return func() { c1.loop.client = whole }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, c1, c2 := fullAndFree(t, "1")
				f.sticky = true
				f.pass(12*time.Minute, 10*time.Second)
				f.rate = 500
				f.pass(40*time.Second, time.Second)
				f.tell("before")
				before1, before2 := c1.replicas(), c2.replicas()
				mend := fail(c1)
				f.pass(4*time.Second, time.Second)
				if c1.replicas() != before1 || c2.replicas() != before2 || !strings.Contains(c2.loop.targets[webKey].across.text, "c1 ") {
					f.tell("failing")
					t.Errorf("had %d and %d pods, have %d and %d", before1, before2, c1.replicas(), c2.replicas())
				}
				f.pass(12*time.Second, time.Second)
				if strings.Contains(c2.loop.targets[webKey].across.text, "c1 ") {
					t.Errorf("c1 still takes part: %s", c2.loop.targets[webKey].across.text)
				}
				mend()
				f.pass(3*time.Second, time.Second)
				if !strings.Contains(c2.loop.targets[webKey].across.text, "c1 ") {
					t.Errorf("c1 does not take part again: %s", c2.loop.targets[webKey].across.text)
				}
			})
		})
	}
}

// TestWhatIsLostCountsForNobodyElse: c1's jump is placed in c2, whose nodes then die. What was there for c1's load is
// ordered anew at once, not when the pods have been missing for longer than they take.
func TestWhatIsLostCountsForNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c1, c2 := fullAndFree(t, "1")
		f.sticky = true
		f.pass(12*time.Minute, 10*time.Second)
		f.rate = 500
		f.pass(30*time.Second, time.Second)
		f.tell("before")
		before := c1.replicas()
		f.lose(c2)
		f.pass(4*time.Second, time.Second)
		f.tell("after")
		if own := c1.loop.targets[webKey].pilot.Demand().Wants; c1.replicas() < own || own <= before {
			t.Errorf("c1 had %d pods, has %d and wants %d", before, c1.replicas(), own)
		}
	})
}
