package learn

import (
	"math"
	"reflect"
	"testing"
)

// service is a world whose law, slope and leads are known.
func service(load func(s int) float64, node int64, seen float64) func(hours int) *Model {
	law := func(load float64, pods int) float64 {
		return math.Min(1, math.Exp(-30*math.Max(0, 1-load/float64(pods))))
	}
	return func(hours int) *Model {
		m := &Model{}
		for s := 0; s < hours*3600; s += 15 {
			l := load(s)
			w := World{Now: int64(s), Seconds: 15, Requests: 1500 * l, Ready: 60, Load: l, Expected: load(s + int(node)), Likely: 1.1 * load(s+int(node)),
				Cores: 1, PerNode: 4, PodHour: 1, NodeHour: 4, PodLead: 30, NodeLead: node, Law: law, Min: 1, Max: 400}
			w.Bad = seen * w.Requests * law(l, 60)
			m.Step(w, 60)
			m.Choose(w.Now, 0.001)
		}
		return m
	}
}

func calm(int) float64 { return 40 }

// Steps that come out of nothing every two hours, and double the load.
func steps(s int) float64 {
	if s%7200 > 5400 {
		return 60
	}
	return 30
}

func TestChoice(t *testing.T) {
	rule := func(m *Model) Rule { return Rules()[m.Chosen] }
	if r := rule(service(calm, 240, 1)(2)); r.Target > Rules()[0].Target {
		t.Errorf("after two hours %+v is in charge: too soon for more than the yardstick's load", r)
	}
	quiet := service(calm, 240, 1)(24)
	if r := rule(quiet); r.Target <= 0.71 {
		t.Errorf("a load that never changes: %+v, want fuller pods than HPA's", r)
	}
	if s := quiet.share(quiet.Chosen); s > 0.001 {
		t.Errorf("the arm in charge lets down %.4f %%, of 0.1 allowed", 100*s)
	}
	// The same load, but three times as many go bad as the law says: what was really seen wins.
	if a, b := rule(quiet), rule(service(calm, 240, 40)(24)); b.Target >= a.Target {
		t.Errorf("when more goes bad than predicted: %+v, was %+v: want emptier pods", b, a)
	}
	late := service(steps, 240, 1)(24)
	if r := rule(late); r.Ahead == Never && r.Target > 0.7 {
		t.Errorf("steps that can be foreseen, and slow nodes: %+v, want nodes ordered ahead or emptier pods", r)
	}
	if p := late.Arms[late.Chosen].Cost / late.Arms[0].Cost; p > ceiling+0.01 {
		t.Errorf("the arm in charge costs %.2f times HPA: the ceiling is %.2f", p, ceiling)
	}
}

func TestSameInputsSameChoices(t *testing.T) {
	if a, b := service(steps, 240, 1)(6), service(steps, 240, 1)(6); !reflect.DeepEqual(a, b) {
		t.Error("two models that saw the same differ")
	}
}

// TestTwin: a twin's pods and nodes come when they would.
func TestTwin(t *testing.T) {
	a := &Arm{Want: 4, Nodes: 1}
	w := World{Now: 0, Load: 5.6, Cores: 1, PerNode: 4, PodLead: 30, NodeLead: 100, Law: func(float64, int) float64 { return 0 }, Min: 1, Max: 100}
	a.follow(Rule{Target: 0.7, Window: 60}, w)
	for _, x := range []struct {
		now   int64
		ready int
	}{{10, 4}, {40, 4}, {101, 8}} {
		w.Now = x.now
		if got := a.ready(w); got != x.ready {
			t.Errorf("at %d s: %d ready, want %d", x.now, got, x.ready)
		}
	}
	if a.Want != 8 || a.Nodes != 2 {
		t.Errorf("%d pods on %d nodes wanted, want 8 on 2", a.Want, a.Nodes)
	}
}

func TestCheck(t *testing.T) {
	m := service(calm, 240, 1)(1)
	if err := m.Check(); err != nil {
		t.Error(err)
	}
	for _, spoil := range []func(*Model){
		func(m *Model) { m.Chosen = 1000 },
		func(m *Model) { m.Arms[3].Want = -1 },
		func(m *Model) { m.Arms[3].Keep.Times = nil; m.Arms[3].Keep.Wants = []int{1} },
	} {
		m := service(calm, 240, 1)(1)
		if spoil(m); m.Check() == nil {
			t.Error("a spoilt model is taken for whole")
		}
	}
}
