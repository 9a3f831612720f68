package autoscaler

import (
	"math"
	"time"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/scale"
	"seaway.dev/seaway/scale/decide"
	"seaway.dev/seaway/scale/guard"
	"seaway.dev/seaway/scale/pilot"
	"seaway.dev/seaway/scale/placement"
)

const (
	lately    = 5 * time.Minute  // for how long what was wanted is kept, and how long calm takes to begin
	patience  = 10 * time.Second // for how long a cluster that fails to see its metrics or its pods still takes part
	deafAfter = 10 * time.Second // a cluster that is asked for pods and orders none for so long is counted out …
	deafFor   = 5 * time.Minute  // … for so long
	followIn  = time.Minute      // a load that does not go within that where there are pods enough does not go there
	aloneFor  = time.Hour        // for how long that is then believed
	moveIn    = 10 * time.Minute // for how long what was moved for its price is not given back; if it then is, nothing moves for aloneFor
)

// across is what a target knows of the other clusters that it divides its pods with. All divide the same words (package
// placement), so what a target makes of their past it says in its own word, too.
type across struct {
	plan  *placement.Plan // of the last step; nil: the decision is the pilot's own
	word  *fleet.Scaling  // to be said to the others; nil: nothing
	text  string          // for the status
	own   int             // what the pilot decided last
	share int             // what was made of it, at the time
	at    time.Time
	well  time.Time // when all was seen and done last

	beats map[string]beat
	asked map[string]ask       // clusters that are asked for pods and have not ordered any since
	deaf  map[string]time.Time // clusters that are counted out, until when
	moved map[string]time.Time // clusters to which pods were moved for their price, when last
	tried time.Time            // the newest of these

	total, needs decide.Keep
	kept         int // the newest of total
	level        int // the least that it has been since it rose
	rose         time.Time
	lacks, badly time.Time // (far) too few pods here and enough elsewhere, since then; zero: not so
	alone        time.Time // it covers itself until then
	waits        time.Time // for pods to get ready, since then; zero: for none
	ready        int
	placed       int // pods that had a node when the room on nodes was looked at, at roomAt
	roomAt       time.Time
}

// beat is when a cluster's word last changed, by the clock of this process: no two clocks are compared.
type beat struct {
	beat  uint64
	at    time.Time
	count int // of changes
}

// ask is when a cluster was asked for pods, how many it had, and how often it had been heard.
type ask struct {
	at          time.Time
	pods, heard int
}

// current is how many pods the pilot is to believe in: those that it decided for, wherever they are.
func (t *target) current(w *world) int {
	if t.across.plan != nil {
		return t.across.own
	}
	return w.replicas
}

// divide makes of the pilot's decision this cluster's share of what all clusters want. Where nobody else takes part the
// decision stands, but a share that was held until then is kept for a while. Measured: the metrics are there; that they fail
// once must not have anybody order pods.
func (t *target) divide(now time.Time, as *v1alpha1.Autoscaler, mode guard.Mode, w *world, measured bool, d *scale.Decision) {
	a := &t.across
	if as.Spec.Across != v1alpha1.AcrossSlice {
		t.across = across{}
		return
	}
	a.plan, a.word, a.text, a.own = nil, nil, "covers itself", d.Replicas
	demand := t.pilot.Demand()
	if mode != guard.Full {
		return
	}
	steady := (measured || now.Sub(a.well) < patience) && !w.rollout && as.Spec.Pin == nil
	if steady && demand.Wants > 0 {
		a.word = a.speak(now, t, w, demand)
		words := a.words(now, t.loop.heard, t.key.String())
		plan := placement.Divide(words)
		s, in := plan.Of(t.loop.heard.Cluster)
		a.follow(now, &plan, w, demand)
		a.text = plan.String()
		if in && plan.Parties() > 1 {
			a.plan, a.share, a.at = &plan, s.Pods, now
			d.Replicas, d.Why = s.Pods, a.text
			return
		}
	}
	if now.Sub(a.at) < lately {
		d.Replicas = max(d.Replicas, min(a.share, w.replicas, t.terms.Max))
	}
}

// speak makes this cluster's word.
func (a *across) speak(now time.Time, t *target, w *world, d pilot.Demand) *fleet.Scaling {
	switch {
	case w.ready >= w.replicas:
		a.waits = time.Time{}
	case a.waits.IsZero() || w.ready > a.ready:
		a.waits = now
	}
	a.ready = w.ready
	if !a.roomAt.Equal(t.loop.roomAt) { // pods that got their node since then take room that was seen as free
		a.placed, a.roomAt = w.placed, t.loop.roomAt
	}
	price := t.terms.PodHour
	if n := t.terms.PodsPerNode; n > 0 {
		price += t.terms.NodeHour / float64(n)
	}
	return &fleet.Scaling{
		Namespace: t.key.Namespace, Name: t.key.Name,
		Wants: d.Wants, Needs: d.Needs, Floor: a.needs.Hold(now.Unix(), d.Needs, int64(lately.Seconds())), Kept: a.kept,
		Load: math.Round(d.Load*1000) / 1000,
		Pods: w.replicas, Ready: w.ready, Lost: w.lost, Min: t.terms.Min, Max: t.terms.Max,
		Room: min(t.loop.room.pods(t.terms.PodCores, w.memory, w.replicas-a.placed), t.terms.Max),
		Soon: d.Soon.Round(time.Second), Late: d.Late.Round(time.Second), Starts: d.Starts, Price: price,
		Calm:   !a.rose.IsZero() && now.Sub(a.rose) >= lately,
		Moving: !a.tried.IsZero() && now.Sub(a.tried) < moveIn,
		Stuck:  !a.waits.IsZero() && now.Sub(a.waits) > 2*d.Late+30*time.Second,
		Alone:  now.Before(a.alone),
	}
}

// words are this cluster's and the others', with their ages.
func (a *across) words(now time.Time, heard fleet.Heard, key string) []placement.Word {
	out := []placement.Word{{Cluster: heard.Cluster, Scaling: *a.word}}
	for cluster, all := range heard.Words {
		for _, s := range all {
			if s.Key() != key || cluster == heard.Cluster {
				continue
			}
			b, known := a.beats[cluster]
			if !known || b.beat != s.Beat {
				b = beat{s.Beat, now, b.count + 1}
				set(&a.beats, cluster, b)
			}
			out = append(out, placement.Word{Cluster: cluster, Age: now.Sub(b.at), Deaf: now.Before(a.deaf[cluster]), Scaling: s})
		}
	}
	return out
}

// follow notes what is to be known later: what was wanted in all, who does not do what it is asked for, and whether the
// load goes where the pods are.
func (a *across) follow(now time.Time, p *placement.Plan, w *world, d pilot.Demand) {
	total, was := p.Total, 0
	for _, s := range p.Shares {
		if s.Out {
			continue
		}
		was += s.Was
		switch at, had := a.moved[s.Cluster]; {
		case s.Why == placement.Moved:
			set(&a.moved, s.Cluster, now)
			a.tried = now
		case had && s.Why == placement.Returned && now.Sub(at) < 2*moveIn: // the load did not follow: not again for a while
			a.rose = now.Add(aloneFor - lately)
		}
		switch then, asked := a.asked[s.Cluster]; {
		case s.Pods <= s.Was || s.Why == placement.Moved: // which is no hurry
			delete(a.asked, s.Cluster)
		case !asked || s.Was > then.pods:
			set(&a.asked, s.Cluster, ask{now, s.Was, a.beats[s.Cluster].count})
		case now.Sub(then.at) >= deafAfter && a.beats[s.Cluster].count >= then.heard+2: // it has heard, and spoken since
			delete(a.asked, s.Cluster)
			set(&a.deaf, s.Cluster, now.Add(deafFor))
		}
	}
	if a.rose.IsZero() { // who begins has not seen what the pods that are there were ordered for
		total = max(total, was)
	}
	kept := a.total.Hold(now.Unix(), total, int64(lately.Seconds()))
	a.kept, a.level = kept, min(a.level, kept)
	if a.rose.IsZero() || now.After(a.rose) && kept > a.level+max(1, a.level/10) {
		a.rose, a.level = now, kept
	}

	enough := p.Ready >= p.Needs && p.Parties() > 1
	past(&a.badly, now, enough && d.Needs >= w.ready+2 && d.Needs*5 > w.ready*6) // a fifth
	past(&a.lacks, now, enough && d.Needs > w.ready)
	if reached(a.badly, now, followIn) || reached(a.lacks, now, lately) {
		a.badly, a.lacks, a.alone = time.Time{}, time.Time{}, now.Add(aloneFor)
	}
}

// past notes since when something is so.
func past(since *time.Time, now time.Time, so bool) {
	if !so {
		*since = time.Time{}
	} else if since.IsZero() {
		*since = now
	}
}

func reached(since, now time.Time, d time.Duration) bool {
	return !since.IsZero() && now.Sub(since) >= d
}

func set[T any](m *map[string]T, key string, v T) {
	if *m == nil {
		*m = map[string]T{}
	}
	(*m)[key] = v
}
