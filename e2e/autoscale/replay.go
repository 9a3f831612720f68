package autoscale

import (
	"time"

	"seaway.dev/seaway/scale"
	"seaway.dev/seaway/scale/hpa"
)

// Curves are the replicas of the real HPA, second by second, and what the simulator's HPA asks for when it is shown at
// each second what the real controller could see (each pod's metric, its age, its readiness).
type Curves struct {
	Real  []int   `json:"real"`
	Ours  []int   `json:"ours"`
	Phase int     `json:"phaseSeconds"` // of the controller's looks, which nobody tells: the one that fits best
	Alike float64 `json:"alike"`        // share of seconds
	Most  int     `json:"most"`         // largest difference
}

// metricWindow is over how long metrics-server means a pod's use: two looks of the kubelet.
const metricWindow = 15 * time.Second

// Replay lays the simulator's HPA beside the real one's leg.
func Replay(l *Leg, target float64, most int) Curves {
	var best Curves
	for phase := range 15 {
		c := replay(l, target, most, phase)
		if phase == 0 || c.Alike > best.Alike {
			best = c
		}
	}
	return best
}

func replay(l *Leg, target float64, most, phase int) Curves {
	h := hpa.New(terms(), hpa.Config{Target: target, Min: 2, Max: most, Phase: time.Duration(phase) * time.Second})
	c := Curves{Phase: phase}
	start := time.Unix(0, 0)
	now := func(s Second) time.Time { return start.Add(time.Duration(s.At) * time.Second) }
	said, same := 0, 0
	for i, s := range l.Seconds {
		d := h.Decide(input(s, now(s)))
		if d.Why != "between two syncs" || i == 0 {
			said = d.Replicas
		}
		c.Real, c.Ours = append(c.Real, s.Replicas), append(c.Ours, said)
	}
	// What is asked for at one second is there at the next.
	for i := 1; i < len(c.Real); i++ {
		d := c.Real[i] - c.Ours[i-1]
		if d == 0 {
			same++
		}
		c.Most = max(c.Most, d, -d)
	}
	c.Alike = float64(same) / float64(max(1, len(c.Real)-1))
	return c
}

func terms() scale.Terms { return scale.Terms{PodCores: PodCores} }

func input(s Second, now time.Time) scale.Input {
	in := scale.Input{Now: now, Replicas: s.Replicas, Samples: []scale.Sample{seenBy(s, now)}}
	for _, p := range s.Pods {
		if p.Ready && !p.Leaving {
			in.Ready++
		}
	}
	return in
}

// seenBy sums what the controller sees: of pods that have become ready after their metric's window began it takes none.
func seenBy(s Second, now time.Time) scale.Sample {
	m := scale.Sample{At: now, Interval: metricWindow, Rate: s.Metric}
	for _, p := range s.Pods {
		if p.Leaving || p.Millis < 0 || !p.Ready {
			continue
		}
		m.Ready, m.Busy = m.Ready+1, m.Busy+float64(p.Millis)/1000
		if !p.Measured.Before(p.Since.Add(metricWindow)) {
			m.Steady, m.SteadyBusy = m.Steady+1, m.SteadyBusy+float64(p.Millis)/1000
		}
	}
	return m
}
