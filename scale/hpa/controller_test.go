package hpa

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/scale"
)

// scripted is the load that the real controller was given, in cores, second by second: waves, a plateau, a spike, a
// trough.
func scripted(s int) float64 {
	v := 4 + 3*math.Sin(float64(s)/600)
	switch {
	case s > 1800 && s < 2400:
		v = 20
	case s > 4000 && s < 4060:
		v = 15
	case s > 5000 && s < 6200:
		v = 1.2
	}
	return v * (1 + 0.04*math.Sin(float64(s)*1.7))
}

// TestAgainstTheRealController: testdata has the replicas that kube-controller-manager 1.34.4's HorizontalController
// asked for on that load, run with fake clients and a fake clock against the same pods (60 % CPU, ready 20 s after
// they are made, metrics every 15 s): "default" without a behavior, "slow" with 2 pods up and 20 % down a minute.
// The controller sums CPU that is rounded up pod by pod, the sums here are rounded once: a pod's difference, for at most
// a stabilisation window, is what that makes.
func TestAgainstTheRealController(t *testing.T) {
	minute := func(l Limit) []Limit { l.Period = time.Minute; return []Limit{l} }
	for name, c := range map[string]struct {
		b     *Behavior
		alike float64
	}{
		"default": {nil, 0.95},
		"slow":    {&Behavior{Up: Rules{Policies: minute(Limit{Pods: 2})}, Down: Rules{Window: time.Minute, Policies: minute(Limit{Percent: 20})}}, 1},
	} {
		want := curve(t, "testdata/controller-1.34-"+name+".csv")
		got := replay(New(scale.Terms{PodCores: 1}, Config{Target: 60, Min: 1, Max: 60, Behavior: c.b, Phase: 14 * time.Second}))
		same := 0
		for s := range got {
			if d := got[s] - want[s]; d < -1 || d > 1 {
				t.Fatalf("%s, second %d: %d replicas, the controller has %d", name, s, got[s], want[s])
			} else if d == 0 {
				same++
			}
		}
		if share := float64(same) / float64(len(got)); share < c.alike {
			t.Errorf("%s: the same replicas in %.2f %% of the time, want %.0f %%", name, 100*share, 100*c.alike)
		}
	}
}

// curve reads replicas at the seconds where they change.
func curve(t *testing.T, path string) (n [7200]int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n")[1:] {
		var at, v int
		if _, err := fmt.Sscanf(line, "%d,%d", &at, &v); err != nil {
			t.Fatalf("%s: %q: %v", path, line, err)
		}
		for ; at < len(n); at++ {
			n[at] = v
		}
	}
	return n
}

// replay runs an HPA in the world that the controller was run in.
func replay(h *HPA) (n [7200]int) {
	type pod struct {
		ready time.Time
		used  float64
	}
	now, want := time.Unix(946684800, 0), 6
	var pods []*pod
	var fresh []scale.Sample
	ready := func(at time.Time) (k int) {
		for _, p := range pods {
			if !p.ready.After(at) {
				k++
			}
		}
		return k
	}
	for s := range n {
		for len(pods) < want {
			p := &pod{ready: now.Add(20 * time.Second)}
			if s == 0 {
				p.ready = now.Add(-time.Hour)
			}
			pods = append(pods, p)
		}
		pods = pods[:want]
		k := ready(now)
		for _, p := range pods {
			if p.ready.After(now) {
				p.used += 0.01
			} else {
				p.used += math.Min(1.5, scripted(s)/float64(k))
			}
		}
		n[s] = want
		now = now.Add(time.Second)
		fresh = nil
		if s%15 == 14 {
			m := scale.Sample{At: now, Interval: 15 * time.Second}
			for _, p := range pods {
				use := p.used / 15
				if p.used = 0; p.ready.After(now) {
					continue
				}
				m.Ready, m.Busy = m.Ready+1, m.Busy+use
				if !p.ready.After(now.Add(-15 * time.Second)) {
					m.Steady, m.SteadyBusy = m.Steady+1, m.SteadyBusy+use
				}
			}
			fresh = []scale.Sample{m}
		}
		want = h.Decide(scale.Input{Now: now, Samples: fresh, Replicas: want, Ready: ready(now)}).Replicas
	}
	return n
}
