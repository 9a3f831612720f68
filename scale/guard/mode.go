package guard

import (
	"fmt"
	"math"
	"time"
)

// Mode is how much the autoscaler is trusted with.
type Mode string

// The modes, in order.
const (
	Observe Mode = "Observe" // learns, says nothing
	Shadow  Mode = "Shadow"  // says what it would do, and what came of it
	Floor   Mode = "Floor"   // sets the least number of replicas of an HPA, which stays in charge above it
	Full    Mode = "Full"    // sets the replicas
)

var order = []Mode{Observe, Shadow, Floor, Full}

// Tally is the evidence gathered in a mode: what the policy's counts would have cost and let go bad compared with
// HPA's, day by day, by the learned capacity and the load that really came.
type Tally struct {
	Days            []Day
	Ours, HPA       float64 // of the day that is going on
	OursBad, HPABad float64
	Requests        float64
	Started         time.Time
}

// Day is one day's outcome.
type Day struct{ Cost, Bad, HPABad float64 } // ours divided by HPA's; shares of requests

// Note adds what happened over dt seconds. Prices are per second, bads are requests per second.
func (t *Tally) Note(now time.Time, dt, ours, hpa, oursBad, hpaBad, rate float64) {
	if t.Started.IsZero() {
		t.Started = now
	}
	t.Ours, t.HPA = t.Ours+dt*ours, t.HPA+dt*hpa
	t.OursBad, t.HPABad, t.Requests = t.OursBad+dt*oursBad, t.HPABad+dt*hpaBad, t.Requests+dt*rate
	if now.Sub(t.Started) < 24*time.Hour || t.HPA <= 0 {
		return
	}
	d := Day{Cost: t.Ours / t.HPA}
	if t.Requests > 0 {
		d.Bad, d.HPABad = t.OursBad/t.Requests, t.HPABad/t.Requests
	}
	days := append(t.Days, d)
	*t = Tally{Days: days[max(0, len(days)-14):], Started: now}
}

// Promotion is the mode that the evidence allows, at most one step up from the present, never above most; it says why.
// A step up takes days of evidence whose gain is larger than its own uncertainty, and a forecast that keeps its word.
// A step down is taken at once when the policy has been sick for an hour in a row or has cost too much for a day.
func (s *State) Promotion(now time.Time, most Mode, good float64, coverage float64, days int) (Mode, string) {
	at := index(s.Mode)
	if at > index(most) {
		return most, "as asked for"
	}
	t := &s.Contemplated
	if n := len(t.Days); n > 0 && at > index(Shadow) {
		if d := t.Days[n-1]; d.Cost > 1.05 && d.Bad >= d.HPABad {
			return order[at-1], fmt.Sprintf("cost %.2f times HPA's for a day without fewer bad requests", d.Cost)
		}
	}
	if at > index(Shadow) && s.Long.Burn(good) > 4 && now.Sub(s.Since) > time.Hour && now.Before(s.Sick) {
		return order[at-1], "error budget burns more than four times too fast for an hour"
	}
	if at == index(most) {
		return s.Mode, ""
	}
	if s.Mode == Observe && s.Samples > 200 {
		return Shadow, "enough was seen to say what it would do"
	}
	if len(t.Days) < days || at == 0 {
		return s.Mode, fmt.Sprintf("%d of %d days of evidence", len(t.Days), days)
	}
	if coverage < 0.92 || coverage > 0.995 {
		return s.Mode, fmt.Sprintf("the forecast's 0.95 quantile holds %.1f %% of outcomes", 100*coverage)
	}
	gain, err := t.gain(days)
	if gain-2*err <= 0 {
		return s.Mode, fmt.Sprintf("the gain over HPA, %.1f ± %.1f %%, is not sure", 100*gain, 200*err)
	}
	return order[at+1], fmt.Sprintf("saves %.1f ± %.1f %% of HPA's cost", 100*gain, 200*err)
}

// gain is the mean saving of the last days and its standard error; a day with more bad requests than HPA's and than a
// tenth of a per mille counts as a loss.
func (t *Tally) gain(days int) (mean, err float64) {
	n, s, ss := 0., 0., 0.
	for _, d := range t.Days[max(0, len(t.Days)-days):] {
		g := 1 - d.Cost
		if d.Bad > math.Max(d.HPABad, 1e-4) {
			g = -0.1
		}
		n, s, ss = n+1, s+g, ss+g*g
	}
	mean = s / n
	if n > 1 {
		err = math.Sqrt(math.Max(0, ss/n-mean*mean) / (n - 1))
	}
	return mean, err
}

// Promote moves to a mode; its evidence begins anew.
func (s *State) Promote(now time.Time, to Mode) {
	if to != s.Mode {
		s.Mode, s.Since, s.Contemplated = to, now, Tally{}
	}
}

func index(m Mode) int {
	for i, o := range order {
		if o == m {
			return i
		}
	}
	return 0
}
