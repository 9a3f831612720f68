package delay

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"seaway.dev/seaway/scale"
)

var t0 = time.Unix(1e9, 0)

func starts(m *Model, r *rand.Rand, n int, image string, median, sigma float64) {
	for range n {
		took := time.Duration(median * math.Exp(sigma*r.NormFloat64()) * float64(time.Second))
		m.Observe(scale.Start{Cluster: "c", Provider: "p", Pool: "a", Image: image, Created: t0, Scheduled: t0.Add(time.Second), Pulled: t0.Add(time.Second), Ready: t0.Add(time.Second + took)})
	}
}

// TestFifteenStartsAreEnough: on average over many services, the learned p95 is within 15 % after 15 starts.
func TestFifteenStartsAreEnough(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	const median, sigma = 8., 0.3
	truth := median * math.Exp(1.645*sigma)
	sum := 0.
	for range 200 {
		var m Model
		starts(&m, r, 15, "web:1", median, sigma)
		sum += m.Pods(Key{"c", "p", "a", "web:1"}).P95.Seconds() / truth / 200
	}
	if math.Abs(sum-1) > 0.15 {
		t.Errorf("p95 is %.2f of the truth", sum)
	}
}

func TestShiftIsNoticed(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	var m Model
	k := Key{"c", "p", "a", "web:1"}
	starts(&m, r, 40, "web:1", 5, 0.2)
	starts(&m, r, 12, "web:1", 15, 0.2)
	if p := m.Pods(k).P50.Seconds(); p < 12 || p > 18 {
		t.Errorf("starts take 15 s now; the median is said to be %.1f", p)
	}
}

// TestKindsAreKeptApart: waiting for nodes teaches nothing about pods, and an unknown image is known by its pool.
func TestKindsAreKeptApart(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	var m Model
	starts(&m, r, 20, "web:1", 5, 0.1)
	before := m.Pods(Key{"c", "p", "a", "web:1"})
	for range 20 {
		m.Observe(scale.Start{Cluster: "c", Provider: "p", Pool: "a", Image: "web:1", NewNode: true, Created: t0, Scheduled: t0.Add(200 * time.Second), Ready: t0.Add(230 * time.Second)})
		m.Observe(scale.Start{Cluster: "c", Provider: "p", Pool: "a", Created: t0, Ready: t0.Add(190 * time.Second)})
	}
	if after := m.Pods(Key{"c", "p", "a", "web:1"}); after != before {
		t.Errorf("pods: %v before, %v after starts with new nodes", before, after)
	}
	if n := m.Nodes(Key{"c", "p", "a", "web:1"}).P50; n < 180*time.Second || n > 260*time.Second {
		t.Errorf("with a new node: %v", n)
	}
	if p := m.Pods(Key{"c", "p", "a", "other:2"}).P50; p > 9*time.Second {
		t.Errorf("another image of the same pool: %v", p)
	}
}

func TestBounded(t *testing.T) {
	var m Model
	r := rand.New(rand.NewPCG(4, 4))
	for i := range 200 {
		starts(&m, r, 2, "web:"+string(rune('a'+i%26))+string(rune('a'+i/26)), 5, 0.1)
	}
	if len(m.Series) > most {
		t.Errorf("%d series", len(m.Series))
	}
}
