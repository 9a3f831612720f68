package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"seaway.dev/seaway/scale"
	"seaway.dev/seaway/scale/delay"
	"seaway.dev/seaway/scale/match"
	"seaway.dev/seaway/scale/pilot"
	"seaway.dev/seaway/scale/sim"
	"seaway.dev/seaway/scale/trace"
)

// hours is a time since the start.
func hours(h float64) time.Duration { return time.Duration(h * float64(time.Hour)) }

// adverse is bar E: what goes wrong, in the load or around it.
func (o options) adverse(ctx context.Context) ([]bar, error) {
	var out []bar
	for _, c := range []struct {
		what, load string
		faults     []sim.Fault
	}{
		{"the day's phase flips", "flip", nil},
		{"the level jumps", "regime", nil},
		{"a poisoned history", "poison", nil},
		{"10 minutes without metrics, each day", "diurnal", daily(sim.Fault{Kind: sim.NoMetrics, For: 10 * time.Minute})},
		{"15 minutes without new nodes, two die", "diurnal", append(daily(sim.Fault{Kind: sim.NodesStuck, For: 15 * time.Minute}), daily(sim.Fault{Kind: sim.NodesFail, Count: 2})...)},
		{"the clock jumps ahead by an hour", "diurnal", []sim.Fault{{Kind: sim.ClockJumps, At: hours(130), For: time.Hour}}},
		{"the clock jumps back by an hour", "diurnal", []sim.Fault{{Kind: sim.ClockJumps, At: hours(130), For: -time.Hour}}},
	} {
		t, err := trace.Generate(c.load, 2)
		if err != nil {
			return nil, err
		}
		p, err := sim.ProfileNamed("slow")
		if err != nil {
			return nil, err
		}
		conf := o.conf(p)
		conf.Faults, conf.From = c.faults, 0.5
		rep, err := match.Run(ctx, match.Spec{Load: match.Load(t, conf, o.pods, 0), Conf: conf, Policies: []string{match.Seaway, "hpa70"}, Seeds: o.seeds, Workers: o.workers})
		if err != nil {
			return nil, err
		}
		s, h := row(rep, match.Seaway), row(rep, "hpa70")
		most := 0
		for _, r := range s.Runs {
			most = max(most, r.MostPods)
		}
		out = append(out, newBar("E", c.what, "cost ×1.05, bad no more", fmt.Sprintf("cost ×%.2f, bad %.4f %% to %.4f %%, at most %d pods", s.Cost.Ratio, 100*s.BadShare.Mean, 100*h.BadShare.Mean, most),
			s.Cost.Ratio <= 1.05 && s.BadShare.Mean <= h.BadShare.Mean+few/10))
		fmt.Printf("%s: %s\n", c.what, out[len(out)-1].Got)
	}
	return out, nil
}

// daily repeats a fault in the morning rise of each day.
func daily(f sim.Fault) (all []sim.Fault) {
	for day := range 8 {
		f.At = hours(float64(day)*24 + 8)
		all = append(all, f)
	}
	return all
}

// delays is bar F: how well start delays are learned, and what that earns.
func (o options) delays(ctx context.Context) ([]bar, error) {
	span := sim.Profiles()["slow"].Node
	worst15, worstShift := learned(span, 15, 1, 200), learned(span, 15, 3, 200)
	out := []bar{
		newBar("F", "node p95 after 15 starts, median error", "15 %", fmt.Sprintf("%.0f %%", 100*worst15), worst15 <= 0.15),
		newBar("F", "10 more starts after a threefold shift", "15 %", fmt.Sprintf("%.0f %%", 100*worstShift), worstShift <= 0.15),
	}
	t, err := trace.Generate("bursty", 3)
	if err != nil {
		return nil, err
	}
	conf := o.conf(sim.Profiles()["slow"])
	conf.From = 0.5
	wrong := func(c sim.Config, _ *trace.Load, _ uint64) scale.Policy {
		return pilot.New(c.Terms, pilot.Options{Name: "wrong-provider", Delays: believed(sim.Profiles()["fast"]), NoDelays: true})
	}
	rep, err := match.Run(ctx, match.Spec{Load: match.Load(t, conf, o.pods, 0), Conf: conf, Policies: []string{match.Seaway, "wrong-provider"},
		Seeds: o.seeds, Workers: o.workers, Makers: map[string]sim.Maker{"wrong-provider": wrong}, Base: "wrong-provider"})
	if err != nil {
		return nil, err
	}
	s := row(rep, match.Seaway)
	return append(out, newBar("F", "against a copy that believes another provider's delays", "10 % better on an axis, no worse on the other",
		fmt.Sprintf("cost ×%.3f, bad ×%.3f", s.Cost.Ratio, s.BadShare.Ratio),
		(s.Cost.Ratio <= 0.9 && s.BadShare.Ratio <= 1.01) || (s.BadShare.Ratio <= 0.9 && s.Cost.Ratio <= 1.01))), nil
}

// start is one start of a node that took a while.
func start(at time.Time, took float64) scale.Start {
	return scale.Start{Name: "node", Cluster: "c", Provider: "p", Pool: "x", NewNode: true, Created: at, Ready: at.Add(time.Duration(took * float64(time.Second)))}
}

// learned is the median, over many tries, of how wrong the learned p95 is. With shift, starts become slower by that
// factor after the first count, and ten more are seen.
func learned(span sim.Span, count int, shift float64, tries int) float64 {
	var wrong []float64
	for seed := range tries {
		r := rand.New(rand.NewPCG(uint64(seed), 9))
		m := &delay.Model{}
		at := time.Unix(1e9, 0)
		see := func(n int, factor float64) {
			for range n {
				sigma := math.Log(span.P95.Seconds()/span.Median.Seconds()) / 1.6449
				m.Observe(start(at, factor*span.Median.Seconds()*math.Exp(sigma*r.NormFloat64())))
				at = at.Add(10 * time.Minute)
			}
		}
		see(count, 1)
		truth := span.P95.Seconds()
		if shift != 1 {
			see(10, shift)
			truth *= shift
		}
		got := m.Estimate(delay.Node, delay.Key{Cluster: "c", Provider: "p", Pool: "x"}).P95.Seconds()
		wrong = append(wrong, math.Abs(got/truth-1))
	}
	slices.Sort(wrong)
	return wrong[len(wrong)/2]
}

// believed is a delay model that has seen a provider for long.
func believed(p sim.Profile) *delay.Model {
	m := &delay.Model{}
	r := rand.New(rand.NewPCG(1, 10))
	at := time.Unix(1e9, 0)
	draw := func(s sim.Span) time.Duration {
		sigma := math.Log(s.P95.Seconds()/s.Median.Seconds()) / 1.6449
		return time.Duration(s.Median.Seconds() * math.Exp(sigma*r.NormFloat64()) * float64(time.Second))
	}
	for range 60 {
		node := scale.Start{Name: "n", Cluster: "sim", Provider: "slow", Pool: "default", NewNode: true, Created: at, Ready: at.Add(draw(p.Node))}
		m.Observe(node)
		m.Observe(scale.Start{Name: "p", Cluster: "sim", Provider: "slow", Pool: "default", Image: "app", Created: at, Scheduled: at, Pulled: at, Ready: at.Add(draw(p.Cached))})
		at = at.Add(10 * time.Minute)
	}
	return m
}

// many is bar G: a thousand targets on one core.
func (o options) many(context.Context) ([]bar, error) {
	t, err := trace.Generate("diurnal", 4)
	if err != nil {
		return nil, err
	}
	conf := o.conf(sim.Profiles()["slow"])
	load := match.Load(t, conf, o.pods, 0)
	load.Rate, load.Masked = load.Rate[:2*86400], load.Masked[:2*86400]
	grown := pilot.New(conf.Terms, pilot.Options{})
	began := time.Now()
	r, err := sim.Run(load, conf, grown, 1)
	if err != nil {
		return nil, err
	}
	each := time.Since(began).Seconds() / float64(len(load.Rate)/int(conf.Every/time.Second))
	saved, err := grown.Save()
	if err != nil {
		return nil, err
	}
	before := heap()
	keep := make([]*pilot.Pilot, 200)
	for i := range keep {
		keep[i] = pilot.New(conf.Terms, pilot.Options{})
		if err := keep[i].Restore(saved); err != nil {
			return nil, err
		}
	}
	size := float64(heap()-before) / float64(len(keep))
	runtime.KeepAlive(keep)
	return []bar{
		newBar("G", "p99 of a decision", "10 ms", r.DecideP99.Round(10*time.Microsecond).String(), r.DecideP99 < 10*time.Millisecond),
		newBar("G", "1,000 targets every 5 s, share of a core (simulator included)", "100 %", fmt.Sprintf("%.0f %%", each*1000/5*100), each*1000/5 < 1),
		newBar("G", "a target's memory after two days", "50 KiB", fmt.Sprintf("%.0f KiB (%.0f KiB saved)", size/1024, float64(len(saved))/1024), size < 50*1024),
	}, nil
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
