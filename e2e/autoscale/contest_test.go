package autoscale

import (
	"encoding/xml"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/scale/hpa"
)

func TestJudge(t *testing.T) {
	l := &Leg{Driver: "hpa", PodHours: 2}
	l.judge(Tally{Sent: 1000, Late: 1, Millis: map[string]int{"50": 900, "3000": 9}},
		Tally{Sent: 2000, Late: 11, Failed: 2, Skipped: 3, Millis: map[string]int{"50": 1800, "70": 85, "200": 14, "3000": 10}})
	if l.Sent != 1000 || l.Late != 10 || l.Failed != 5 || l.P50 != 55 || l.P99 != 205 {
		t.Errorf("%+v: want 1000 requests, 10 late, 5 failed, 55 and 205 ms", l)
	}
	if s := Table([]*Leg{l, {Driver: "seaway", PodHours: 1}}); !strings.Contains(s, "1.500") || !strings.Contains(s, "0.50") {
		t.Errorf("the table says\n%s", s)
	}
}

// TestReplay shows the simulator's HPA what a controller saw whose rules were those: the curves must be one.
func TestReplay(t *testing.T) {
	leg := &Leg{}
	want, ready := 2, 2
	h := hpa.New(terms(), hpa.Config{Target: 70, Min: 2, Max: 18, Phase: 7 * time.Second})
	for i := range 120 {
		s := Second{At: float64(i), Replicas: want, Ready: ready}
		for j := range ready {
			use := int64(25)
			if i > 30 && j < 2 {
				use = 40
			}
			s.Pods = append(s.Pods, Pod{Name: string(rune('a' + j)), Ready: true, Millis: use, Measured: time.Unix(1000, 0), Since: time.Unix(0, 0)})
		}
		leg.Seconds = append(leg.Seconds, s)
		now := time.Unix(0, 0).Add(time.Duration(i) * time.Second)
		want, ready = h.Decide(input(s, now)).Replicas, s.Replicas
	}
	if c := Replay(leg, 70, 18); c.Alike < 0.99 || c.Phase != 7 || c.Most > 0 {
		t.Errorf("alike %.3f with phase %d, %d apart", c.Alike, c.Phase, c.Most)
	}
	if leg.Seconds[len(leg.Seconds)-1].Replicas == 2 {
		t.Error("nothing was scaled: the test shows nothing")
	}
}

func TestDraw(t *testing.T) {
	var b strings.Builder
	if err := Draw(&b, "a < b", []float64{40, 80}, map[string][]int{"hpa": {1, 2}}, []string{"hpa"}); err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal([]byte(b.String()), new(struct{})); err != nil {
		t.Error(err)
	}
}
