// Package placement divides the pods of one service between the clusters of a slice:
//
//	words of all clusters ──Divide──▶ Plan: how many pods each has, and why
//
// While pods are missing that the load of this moment needs, the next one goes where it is ready soonest; else where it is
// cheapest and in time; in calm, pods move to where they are cheaper. Each cluster divides the same words and takes its own
// share (decision 0033), so the answer depends on nothing but the words: no state, no clock, no order.
package placement

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"seaway.dev/seaway/fleet"
)

const (
	// Stale is the age from which a word is counted out: three times what passes between two beats of a word.
	Stale = 30 * time.Second
	// quiet is the age from which nobody is asked for pods: a beat is missing, and who is dead cannot order any.
	quiet = Stale / 2
	// away is by how much later a pod counts that is for another cluster's load: the word travels, and connections follow.
	away = 5 * time.Second
	// alike is the part of a price within which prices are equal: moving for less costs more starts than it saves.
	alike = 0.1
	// batch is the part of all pods that is moved at a time, at least one.
	batch = 0.1
	// even is by how much more load a cluster's pods may have than others' for the load to count as spread over all.
	even = 0.05
)

// Why a cluster has its share.
const (
	Kept     = "kept"
	Soonest  = "soonest"
	Cheapest = "cheapest"
	OnlyRoom = "only room"
	Moved    = "moved" // in calm, for the price
	Returned = "given back"
)

// Word is what is known of one cluster's autoscaler.
type Word struct {
	Cluster string
	Age     time.Duration // since it was last heard
	Deaf    bool          // it was asked for pods and orders none
	fleet.Scaling
}

// Share is one cluster's part.
type Share struct {
	Cluster string        `json:"cluster"`
	Pods    int           `json:"pods"`
	Was     int           `json:"was"`
	Ready   int           `json:"ready"`
	Wants   int           `json:"wants"` // for its own load
	Room    int           `json:"room"`
	Soon    time.Duration `json:"soon"`
	Late    time.Duration `json:"late"`
	Starts  float64       `json:"starts,omitempty"` // behind Soon and Late
	Price   float64       `json:"price,omitempty"`  // of a pod-hour; 0: unknown
	Why     string        `json:"why"`
	Out     bool          `json:"out,omitempty"` // counted out: it covers itself, and Pods is what it wants
}

// Plan is how the pods are divided.
type Plan struct {
	Total  int     `json:"total"` // wanted by those that take part
	Ready  int     `json:"ready"`
	Needs  int     `json:"needs"` // by the load of this moment
	Kept   int     `json:"kept"`  // the most that was wanted in the last minutes
	Short  int     `json:"short,omitempty"`
	Shares []Share `json:"shares"` // sorted by cluster
}

// Of returns a cluster's share; false if the plan knows it not, or counts it out.
func (p *Plan) Of(cluster string) (Share, bool) {
	for _, s := range p.Shares {
		if s.Cluster == cluster {
			return s, !s.Out
		}
	}
	return Share{}, false
}

// Parties is how many clusters take part.
func (p *Plan) Parties() (n int) {
	for _, s := range p.Shares {
		if !s.Out {
			n++
		}
	}
	return n
}

// part is a cluster while pods are divided.
type part struct {
	Word
	pods   int
	why    string
	spread bool // its pods have no more load than others': the load goes where the pods are
}

// Divide divides the pods. Each cluster is to be named once.
func Divide(words []Word) Plan {
	words = slices.Clone(words)
	slices.SortFunc(words, func(a, b Word) int { return strings.Compare(a.Cluster, b.Cluster) })
	var p Plan
	var live []*part
	out := map[string]Share{}
	for _, w := range words {
		if why := outside(w); why != "" {
			s := share(&part{Word: w, pods: bound(w.Wants, w), why: "counted out: " + why})
			s.Out = true
			out[w.Cluster] = s
			continue
		}
		live = append(live, &part{Word: w, pods: bound(w.Pods, w), why: Kept})
	}
	p.divide(live)
	for _, l := range live {
		out[l.Cluster] = share(l)
	}
	for _, w := range words {
		p.Shares = append(p.Shares, out[w.Cluster])
	}
	return p
}

func outside(w Word) string {
	switch {
	case w.Age > Stale:
		return "it is silent"
	case w.Deaf:
		return "it was asked for pods and orders none"
	case w.Alone:
		return "its load does not go to others' pods"
	case w.Min < 0 || w.Max < w.Min:
		return "its bounds make no sense"
	}
	return ""
}

func bound(n int, w Word) int { return min(max(n, w.Min), w.Max) }

func share(l *part) Share {
	return Share{Cluster: l.Cluster, Pods: l.pods, Was: l.Pods, Ready: l.Ready, Wants: l.Wants, Room: l.Room,
		Soon: l.Soon, Late: l.Late, Starts: l.Starts, Price: l.Price, Why: l.why}
}

func (p *Plan) divide(live []*part) {
	sure, ready, all := 0, 0, 0
	calm, moving, priced := true, false, true
	for _, l := range live {
		p.Total += bound(l.Wants, l.Word)
		p.Needs += bound(l.Needs, l.Word)
		p.Kept = max(p.Kept, l.Kept)
		up := min(l.Ready, l.pods)
		p.Ready, ready, all = p.Ready+l.Ready, ready+up, all+l.pods
		if l.Stuck {
			sure += up
		} else {
			sure += l.pods - l.lost()
		}
		calm, moving = calm && l.Calm && !l.Stuck, moving || l.Moving
		priced = priced && l.Price > 0
	}
	if !priced {
		for _, l := range live {
			l.Price = 0
		}
	}
	p.Kept = max(p.Kept, p.Total)
	compare(live)
	switch surplus := ready - p.Kept; {
	case sure < p.Total:
		p.Short = add(live, p.Total-sure, ready < p.Needs)
	case surplus > 0:
		give(live, surplus, moving)
	case calm && ready == all && all == p.Kept && priced:
		move(live, max(1, int(batch*float64(p.Total))))
	}
}

// add places pods that are missing, where the next one goes as long as that is the same place. It returns how many could
// not be placed.
func add(live []*part, missing int, danger bool) int {
	for missing > 0 {
		var can []*part
		home := time.Duration(-1)
		for _, l := range live {
			if l.pods < l.Max && !l.Stuck && l.Age <= quiet {
				can = append(can, l)
			}
			if l.pods < bound(l.Wants, l.Word) {
				home = max(home, l.delay())
			}
		}
		if len(can) == 0 {
			return missing
		}
		why := Soonest
		if len(can) == 1 && len(live) > 1 {
			why = OnlyRoom
		}
		if timely := inTime(can, home); !danger && len(timely) > 0 {
			if can = cheap(timely); len(can) < len(timely) {
				why = Cheapest
			}
		}
		to := slices.MinFunc(can, func(a, b *part) int {
			return cmp.Or(cmp.Compare(a.arrives(), b.arrives()), cmp.Compare(a.Price, b.Price), strings.Compare(a.Cluster, b.Cluster))
		})
		n := min(missing, to.Max-to.pods, to.steady())
		to.pods += n
		to.why = why
		missing -= n
	}
	return 0
}

// steady is for how many pods neither the cluster's delay nor whose load they are for changes.
func (l *part) steady() int {
	n := math.MaxInt
	if left := l.Room - (l.pods - l.Pods); left > 0 {
		n = left
	}
	if lack := bound(l.Wants, l.Word) - l.pods; lack > 0 {
		n = min(n, lack)
	}
	return n
}

// delay is how long the cluster's next pod takes.
func (l *part) delay() time.Duration {
	if l.pods-l.Pods < l.Room {
		return l.Soon
	}
	return max(l.Late, l.Soon)
}

// arrives is delay, and what it takes longer for another's load.
func (l *part) arrives() time.Duration {
	if l.pods < bound(l.Wants, l.Word) {
		return l.delay()
	}
	return l.delay() + away
}

// inTime are those where a pod is ready no later than where the load is; all if no load lacks pods.
func inTime(can []*part, home time.Duration) (out []*part) {
	for _, l := range can {
		if home < 0 || l.delay() <= home {
			out = append(out, l)
		}
	}
	return out
}

// cheap are the cheapest, and those that cost nearly as little.
func cheap(can []*part) (out []*part) {
	least := math.Inf(1)
	for _, l := range can {
		least = min(least, l.Price)
	}
	for _, l := range can {
		if l.Price <= least*(1+alike) {
			out = append(out, l)
		}
	}
	return out
}

// compare finds whose pods have no more load than others'.
func compare(live []*part) {
	for _, l := range live {
		l.spread = len(live) > 1 && l.Load > 0 && l.Ready > 0
		for _, o := range live {
			if o != l && o.Ready > 0 && l.Load*float64(o.Ready) > o.Load*float64(l.Ready)*(1+even) {
				l.spread = false
			}
		}
	}
}

// lost is how many pods cannot be counted on, for their nodes died. The load that they served shows in what others want;
// so they may stand for what their own cluster still wants, but for nobody else's load.
func (l *part) lost() int {
	return max(0, min(l.Lost, l.pods-max(bound(l.Wants, l.Word), l.Ready)))
}

// spare is how many pods a cluster can do without. Where the load goes where the pods are, it will need fewer when it has
// fewer; else it keeps what it has needed lately.
func (l *part) spare() int {
	if l.spread {
		return l.pods - l.Min
	}
	return l.pods - max(l.Min, min(max(l.Needs, l.Floor), l.pods))
}

// cheaper tells whether pods cost less here, by more than what counts as equal twice.
func (l *part) cheaper(o *part) bool { return l.Price*(1+alike) < o.Price/(1+alike) }

// dear are those of the clusters with pods to spare that cost the most, or nearly.
func dear(live []*part) (out []*part) {
	most := 0.
	for _, l := range live {
		if l.spare() > 0 {
			most = max(most, l.Price)
		}
	}
	for _, l := range live {
		if l.spare() > 0 && l.Price >= most/(1+alike) {
			out = append(out, l)
		}
	}
	return out
}

// give gives up pods: of the dearest first, of these where most are beyond what is wanted. While pods are being moved only
// the dearest give any up: what was ordered instead of theirs is waited for, and for the load to follow.
func give(live []*part, surplus int, moving bool) {
	for ; surplus > 0; surplus-- {
		from := dear(live)
		if moving {
			from = slices.DeleteFunc(from, func(l *part) bool {
				return slices.ContainsFunc(live, func(o *part) bool { return o.pods > o.Min && l.cheaper(o) })
			})
		}
		if len(from) == 0 {
			return
		}
		l := slices.MinFunc(from, func(a, b *part) int {
			return cmp.Or(cmp.Compare(b.pods-b.Wants, a.pods-a.Wants), strings.Compare(a.Cluster, b.Cluster))
		})
		l.pods--
		l.why = Returned
	}
}

// move orders substitutes in the cheapest cluster for pods of the dearest, which gives its own up when they are ready.
func move(live []*part, most int) {
	from := dear(live)
	if len(from) == 0 {
		return
	}
	spare := 0
	for _, l := range from {
		spare += l.spare()
	}
	var can []*part
	for _, l := range live {
		if l.pods < l.Max && l.cheaper(from[0]) {
			can = append(can, l)
		}
	}
	if len(can) == 0 {
		return
	}
	to := slices.MinFunc(can, func(a, b *part) int {
		return cmp.Or(cmp.Compare(a.Price, b.Price), strings.Compare(a.Cluster, b.Cluster))
	})
	to.pods += min(most, spare, to.Max-to.pods)
	to.why = Moved
}

// String is the plan in one line.
func (p *Plan) String() string {
	var parts []string
	for _, s := range p.Shares {
		parts = append(parts, s.String())
	}
	text := fmt.Sprintf("%d pods wanted in all: %s", p.Total, strings.Join(parts, ", "))
	if p.Short > 0 {
		text += fmt.Sprintf("; no cluster can take %d more", p.Short)
	}
	return text
}

// String is the share in a few words.
func (s Share) String() string {
	if s.Out {
		return fmt.Sprintf("%s %s", s.Cluster, s.Why)
	}
	why := s.Why
	if s.Why == Soonest || s.Why == OnlyRoom || s.Why == Cheapest || s.Why == Moved {
		d := s.Soon
		if s.Pods-s.Was > s.Room {
			d = s.Late
		}
		why += " in " + d.Round(time.Second).String()
	}
	if s.Price > 0 && s.Why != Kept {
		why += fmt.Sprintf(", %.4g an hour", s.Price)
	}
	return fmt.Sprintf("%s %d (%s)", s.Cluster, s.Pods, why)
}

// Lines is the plan at length, as name and value.
func (p *Plan) Lines() [][2]string {
	out := [][2]string{{"In all clusters", fmt.Sprintf("%d pods wanted (%d lately), %d needed now, %d ready", p.Total, p.Kept, p.Needs, p.Ready)}}
	for _, s := range p.Shares {
		if s.Out {
			out = append(out, [2]string{"  " + s.Cluster, s.Why})
			continue
		}
		text := fmt.Sprintf("%d → %d, %s; %d for its own load; room for %d; ready in %s, with a new node in %s (from %.0f starts)",
			s.Was, s.Pods, s.Why, s.Wants, s.Room, s.Soon.Round(time.Second), s.Late.Round(time.Second), s.Starts)
		if s.Price > 0 {
			text += fmt.Sprintf("; %.4g a pod-hour", s.Price)
		}
		out = append(out, [2]string{"  " + s.Cluster, text})
	}
	return out
}
