package match

import (
	"context"
	"math"
	"os"
	"testing"
	"time"

	"seaway.dev/seaway/scale/sim"
	"seaway.dev/seaway/scale/trace"
)

// day is a made-up load with a daily wave, so many hours long.
func day(hours int) *trace.Load {
	l := &trace.Load{Name: "wave", Rate: make([]float64, hours*3600), Factor: 1, Hold: 1}
	for i := range l.Rate {
		l.Rate[i] = 1500 + 1000*math.Sin(2*math.Pi*float64(i)/86400)
	}
	return l
}

func TestTimes(t *testing.T) {
	if os.Getenv("TIMES") == "" {
		t.Skip()
	}
	l := day(48)
	for _, name := range []string{"hpa70", "keda", "holtwinters", B0, B1, Seaway} {
		conf := sim.Default(sim.Profiles()["slow"])
		began := time.Now()
		r, err := Run(context.Background(), Spec{Load: l, Conf: conf, Policies: []string{name}, Seeds: 1, Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s %s: %.0f node-h %.0f pod-h %.4f%% bad p99 %.2fms", name, time.Since(began), r.Rows[0].NodeHours.Mean, r.Rows[0].PodHours.Mean, 100*r.Rows[0].BadShare.Mean, r.Rows[0].DecideP99)
	}
}
