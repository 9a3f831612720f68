package sim

import (
	"math"
	"slices"
	"time"

	"seaway.dev/seaway/scale/trace"
)

// Result is what a run came to, over the part that counts.
type Result struct {
	Policy   string  `json:"policy"`
	Seed     uint64  `json:"seed"`
	Seconds  int     `json:"seconds"`
	Requests float64 `json:"requests"`
	// Bad is how many were late, refused, timed out or lost; BadShare is that over Requests.
	Bad      float64 `json:"bad"`
	BadShare float64 `json:"badShare"`
	// BadMinutes is the share of minutes in which more than 1 % were bad.
	BadMinutes float64 `json:"badMinutes"`
	PodHours   float64 `json:"podHours"`
	NodeHours  float64 `json:"nodeHours"`
	Cost       float64 `json:"cost"` // by the Terms' prices
	Actions    int     `json:"actions"`
	Flips      int     `json:"flips"` // changes of direction within 5 minutes
	MostPods   int     `json:"mostPods"`
	// DecideP99 is the policy's own time for a decision, on this machine.
	DecideP99 time.Duration `json:"decideP99"`
	Series    []Minute      `json:"series,omitempty"`
}

// Minute is a minute of a run.
type Minute struct {
	Rate  float64 `json:"rate"`
	Want  float64 `json:"want"`
	Ready float64 `json:"ready"`
	Nodes float64 `json:"nodes"`
	Bad   float64 `json:"bad"` // share
}

type score struct {
	load     *trace.Load
	from, to int
	prices   [2]float64
	series   bool
	r        Result

	minute    Minute
	inMinute  int
	requests  float64
	bad       float64
	minutes   int
	badMin    int
	last      int // second of the last action, and its direction
	direction int
	times     []time.Duration
	decisions int
}

func newScore(load *trace.Load, conf Config) score {
	n := float64(len(load.Rate))
	return score{load: load, from: int(conf.From * n), to: int(math.Ceil(conf.To * n)), series: conf.Series,
		prices: [2]float64{conf.Terms.PodHour, conf.Terms.NodeHour}, last: -1 << 30}
}

func (k *score) counts(s int) bool {
	return s >= k.from && s < k.to && (s >= len(k.load.Masked) || !k.load.Masked[s])
}

func (k *score) add(s int, c *cluster, count float64, f flow) {
	if k.series {
		m := &k.minute
		m.Rate += count
		m.Want += float64(c.replicas())
		m.Ready += float64(c.readyPods())
		m.Nodes += float64(len(c.nodes))
		m.Bad += f.bad
		if k.inMinute++; k.inMinute == 60 {
			bad := 0.0
			if m.Rate > 0 {
				bad = m.Bad / m.Rate
			}
			k.r.Series = append(k.r.Series, Minute{m.Rate / 60, m.Want / 60, m.Ready / 60, m.Nodes / 60, bad})
			k.minute, k.inMinute = Minute{}, 0
		}
	}
	if k.counts(s) {
		bad := min(f.bad, count)
		pods, nodes := c.billed()
		k.r.Seconds++
		k.r.Requests += count
		k.r.Bad += bad
		k.r.PodHours += float64(pods) / 3600
		k.r.NodeHours += float64(nodes) / 3600
		k.r.MostPods = max(k.r.MostPods, pods)
		k.requests += count
		k.bad += bad
	}
	if s%60 == 59 && k.requests > 0 {
		k.minutes++
		if k.bad > 0.01*k.requests {
			k.badMin++
		}
		k.requests, k.bad = 0, 0
	}
}

func (k *score) lost(s int, n float64) {
	if k.counts(s) {
		k.r.Bad += n
	}
}

func (k *score) acted(s, before, after int) {
	direction := 1
	if after < before {
		direction = -1
	}
	if k.counts(s) {
		k.r.Actions++
		if direction == -k.direction && s-k.last < 300 {
			k.r.Flips++
		}
	}
	k.last, k.direction = s, direction
}

// decided keeps every 16th of the decisions' times: enough for a percentile.
func (k *score) decided(_, _ int, took time.Duration) {
	if k.decisions++; k.decisions%16 == 0 {
		k.times = append(k.times, took)
	}
}

func (k *score) result(policy string, seed uint64) *Result {
	r := k.r
	r.Policy, r.Seed = policy, seed
	if r.Requests > 0 {
		r.BadShare = r.Bad / r.Requests
	}
	if k.minutes > 0 {
		r.BadMinutes = float64(k.badMin) / float64(k.minutes)
	}
	r.Cost = r.PodHours*k.prices[0] + r.NodeHours*k.prices[1]
	if len(k.times) > 0 {
		slices.Sort(k.times)
		r.DecideP99 = k.times[len(k.times)*99/100]
	}
	return &r
}
