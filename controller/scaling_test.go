package controller

import (
	"encoding/json"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/fleet"
)

// TestAutoscalersHearOfEachOther: what one cluster's autoscaler says travels in its bulletin, and is handed over in the
// others, as far as it is of a workload on a slice that both are on and speak of.
func TestAutoscalersHearOfEachOther(t *testing.T) {
	ctx := t.Context()
	leaders := map[string]*leader{}
	for _, name := range []string{"c1", "c2"} {
		l := assemble(Config{Cluster: name, Namespace: "seaway-system", Rest: time.Minute, Log: quiet}, fakeClient(interceptor.Funcs{}), record.NewFakeRecorder(100))
		l.known.Store(true)
		f := &l.board.facts
		w := roster.Wish{Names: []string{"shop"}}
		w.Name, w.Clusters = "pay", []string{"c1", "c2"}
		f.Members, f.Slices = []roster.Member{{Name: "c1"}, {Name: "c2"}}, []roster.Wish{w}
		f.Here = 1
		f.Namespaces["shop"], f.Namespaces["ops"] = nil, nil
		leaders[name] = l
	}
	say := func(l *leader, words ...fleet.Scaling) {
		t.Helper()
		text, _ := json.Marshal(words)
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "seaway-system", Name: fleet.ScalingSaid}, Data: map[string]string{fleet.ScalingKey: string(text)}}
		if err := l.client.Update(ctx, cm); err != nil {
			if err := l.client.Create(ctx, cm); err != nil {
				t.Fatal(err)
			}
		}
	}
	tell := func(from, to *leader) {
		t.Helper()
		if _, err := from.scaling.look(ctx, time.Now()); err != nil {
			t.Fatal(err)
		}
		from.turn(time.Now())
		to.carry.put(from.mailbox.now, "test")
		to.turn(time.Now())
	}
	heard := func(l *leader) (h fleet.Heard) {
		t.Helper()
		if err := l.scaling.write(ctx); err != nil {
			t.Fatal(err)
		}
		cm := &corev1.ConfigMap{}
		if err := l.client.Get(ctx, client.ObjectKey{Namespace: "seaway-system", Name: fleet.ScalingHeard}, cm); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(cm.Data[fleet.ScalingKey]), &h); err != nil {
			t.Fatal(err)
		}
		return h
	}
	c1, c2 := leaders["c1"], leaders["c2"]
	web := fleet.Scaling{Namespace: "shop", Name: "web", Wants: 3, Max: 9, Beat: 1}
	say(c1, web, fleet.Scaling{Namespace: "ops", Name: "web", Max: 9}, fleet.Scaling{Namespace: "shop", Name: "db", Max: 9})
	tell(c1, c2)
	if got := c1.mailbox.now.Scaling; len(got) != 2 || got[1].Slice != "pay" || got[1].Name != "web" {
		t.Fatalf("the bulletin says %+v", got)
	}
	if h := heard(c2); h.Cluster != "c2" || len(h.Words) != 0 {
		t.Errorf("c2's autoscaler says nothing and hears %+v", h)
	}
	web.Beat = 7
	say(c2, web)
	tell(c2, c1)
	c2.turn(time.Now())
	if h := heard(c2); len(h.Words["c1"]) != 1 || h.Words["c1"][0].Wants != 3 || h.Words["c1"][0].Beat != 1 {
		t.Errorf("c2 hears %+v", h)
	}
	if h := heard(c1); len(h.Words["c2"]) != 1 || h.Words["c2"][0].Beat != 7 {
		t.Errorf("c1 hears %+v", h)
	}

	// News of an autoscaler are no reason to work out anew who is on which slice, nor to write to the hub at once.
	before, was := c1.roster.Load(), c1.mailbox.now
	web.Wants = 5
	say(c1, web)
	tell(c1, c2)
	if !c1.roster.Load().SameHere(before) || !sameForHub(was, c1.mailbox.now) {
		t.Error("a word of the autoscaler's turns everything over")
	}
	if h := heard(c2); h.Words["c1"][0].Wants != 5 {
		t.Errorf("c2 hears %+v", h)
	}
	// A role that is gone does not go on speaking.
	if spoken, err := c1.scaling.look(ctx, time.Now().Add(scalingStale+time.Second)); spoken || err != nil {
		t.Errorf("still told after %s: %v", scalingStale, err)
	}
	c1.turn(time.Now())
	if got := c1.mailbox.now.Scaling; got != nil {
		t.Errorf("the bulletin says %+v", got)
	}
}
