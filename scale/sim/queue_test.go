package sim

import (
	"math"
	"testing"
	"time"

	"seaway.dev/seaway/scale/trace"
)

// TestExactAgainstErlang: the exact queues at rest have the waits that Erlang's formulas give, within 1 %.
func TestExactAgainstErlang(t *testing.T) {
	conf := Default(Profiles()["fast"])
	conf.Service.Warm, conf.Start = 0, 10
	for _, rho := range []float64{0.5, 0.7, 0.85} {
		c := newCluster(conf.Profile, 4, 0, epoch, 1)
		c.begin(10)
		q := newExact(conf, 1)
		st := newStation(conf.Service.Workers)
		sum, seconds := 0.0, 4000
		for s := range seconds {
			c.step(float64(s), q.warmed)
			f := q.second(c, 0, float64(poisson(q.rand, rho*10*conf.Service.Rate())))
			if s >= seconds/10 {
				sum += f.inFlight / 10 / float64(seconds-seconds/10)
			}
		}
		if want := erlangMean(st, rho); math.Abs(sum/want-1) > 0.01 {
			t.Errorf("at %g: %.3f requests in a pod, Erlang says %.3f", rho, sum, want)
		}
	}
}

func erlangMean(st *station, rho float64) float64 {
	return float64(st.servers)*rho + erlangC(st.servers, rho)*rho/(1-rho)
}

func TestErlangC(t *testing.T) {
	for _, c := range []struct {
		servers   int
		rho, want float64
	}{{1, 0.5, 0.5}, {2, 0.5, 1.0 / 3}, {5, 0.8, 0.5541}, {10, 0.9, 0.6687}, {100, 0.9, 0.2169}} {
		if got := erlangC(c.servers, c.rho); math.Abs(got-c.want) > 5e-4 {
			t.Errorf("%d servers at %g: %.4f wait, want %.4f", c.servers, c.rho, got, c.want)
		}
	}
}

// TestFluidAgainstExact: over loads that are calm, near the limit, beyond it, and changing, with pods that warm up, the
// fast form counts as many bad requests as the exact one, within what its purpose needs.
func TestFluidAgainstExact(t *testing.T) {
	hours := func(f func(s float64) float64) *trace.Load {
		l := flat(0, 30*time.Minute)
		for i := range l.Rate {
			l.Rate[i] = f(float64(i))
		}
		return l
	}
	if testing.Short() {
		t.Skip("plays 35 million requests")
	}
	loads := map[string]*trace.Load{
		"calm":    hours(func(float64) float64 { return 700 }),
		"busy":    hours(func(float64) float64 { return 850 }),
		"full":    hours(func(float64) float64 { return 930 }),
		"spikes":  hours(func(s float64) float64 { return 700 + 400*math.Exp(-math.Pow(math.Mod(s, 600)-300, 2)/50) }),
		"swings":  hours(func(s float64) float64 { return 750 + 200*math.Sin(s/60) }),
		"crowded": hours(func(s float64) float64 { return 600 + 800*math.Max(0, math.Sin(s/1500)) }),
	}
	for name, l := range loads {
		for _, b := range []Balancer{Random, LeastRequest} {
			for _, policy := range []string{"static-10", "hpa70"} {
				conf := Default(Profiles()["fast"])
				conf.Balancer, conf.Start = b, 10
				fast := play(t, l, conf, policy, 1)
				conf.Exact = true
				began := time.Now()
				slow := play(t, l, conf, policy, 1)
				rate := slow.Requests / time.Since(began).Seconds() / 1e6
				// with a controller in the loop, which of the spikes it catches is chance
				room, hours := 0.00015+0.25*slow.BadShare, 0.001
				if b == LeastRequest { // a spike that ends just within the limit: the fast form is on the strict side
					room = 0.00015 + 0.75*slow.BadShare
				}
				if policy != "static-10" {
					room, hours = 0.0025+0.5*slow.BadShare, 0.1
				}
				if math.Abs(fast.BadShare-slow.BadShare) > room || math.Abs(fast.PodHours/slow.PodHours-1) > hours {
					t.Errorf("%s, %s, %s: %.4f %% bad and %.2f pod-hours, exact %.4f %% and %.2f", name, b, policy, 100*fast.BadShare, fast.PodHours, 100*slow.BadShare, slow.PodHours)
				}
				t.Logf("%s, %s, %s: %.4f %% bad, exact %.4f %%; pod-hours %.2f, %.2f; exact played %.1f M requests/s", name, b, policy, 100*fast.BadShare, 100*slow.BadShare, fast.PodHours, slow.PodHours, rate)
			}
		}
	}
}
