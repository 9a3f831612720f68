// Package drill rehearses failures on clusters that people use: it does something that Kubernetes allows, for a short
// time, watches with a client of its own what an application sees, undoes it whatever happens, and stops at once when
// more breaks than was said to be allowed. This package decides and measures; [seaway.dev/seaway/drill/field] has the hands.
package drill

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"seaway.dev/seaway/drill/sight"
)

// Drill is something that can be rehearsed.
type Drill struct {
	Name  string
	Tells string // what is done
	Sees  string // what the application is to see
	Peer  bool   // needs --peer
}

// Catalogue is all drills.
var Catalogue = []Drill{
	{Name: "nothing", Tells: "Do nothing: what the application sees on a quiet day.", Sees: "nothing"},
	{Name: "delete-pod", Tells: "Delete one ready pod behind the service in this cluster.", Sees: "its connections break; new ones are answered by others"},
	{Name: "cordon-gateway", Tells: "Cordon one gateway of this cluster, so that it relays no more, and uncordon it.", Sees: "nothing: another gateway relays"},
	{Name: "blackhole-peer", Tells: "Drop all of Seaway's packets between this cluster's nodes and one node of another (--peer).",
		Sees: "a gap below a second, then another way, or another endpoint", Peer: true},
}

// Find finds a drill.
func Find(name string) (Drill, error) {
	for _, d := range Catalogue {
		if d.Name == name {
			return d, nil
		}
	}
	var names []string
	for _, d := range Catalogue {
		names = append(names, d.Name)
	}
	return Drill{}, fmt.Errorf("there is no drill %q; there are %s", name, strings.Join(names, ", "))
}

// Longest is how long a fault may stay. What keeps it undoes itself then, even if everybody has forgotten it.
const Longest = 5 * time.Minute

// Guard says how much may break. It looks at the questions that were asked or answered within the window.
type Guard struct {
	Errors float64       // share of questions that may fail, 0 to 1
	Window time.Duration // over which that is counted
	Few    int           // fewer questions than this prove nothing
}

// DefaultGuard lets half of what was asked within two seconds fail.
var DefaultGuard = Guard{Errors: 0.5, Window: 2 * time.Second, Few: 20}

// Broken tells whether more fails than may, and what it saw. Silence of every flow for a whole window is broken, too.
func (g Guard) Broken(notes []sight.Note, now time.Time) (string, bool) {
	from := now.Add(-g.Window)
	asked, failed := 0, 0
	for _, n := range notes {
		if n.End.Before(from) {
			continue
		}
		asked++
		if n.Outcome != "ok" {
			failed++
		}
	}
	switch {
	case asked == 0:
		return fmt.Sprintf("no question was answered, well or badly, for %s", g.Window), true
	case asked >= g.Few && float64(failed) > g.Errors*float64(asked):
		return fmt.Sprintf("%d of %d questions failed within %s (%d %% may)", failed, asked, g.Window, int(g.Errors*100+0.5)), true
	}
	return "", false
}

// Bucket counts the answers that took up to so long.
type Bucket struct {
	Upto  time.Duration `json:"upto"` // 0: longer than all others
	Count int           `json:"count"`
}

var bounds = []time.Duration{time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second}

// Histogram counts good answers by how long they took, of questions asked since a time.
func Histogram(notes []sight.Note, since time.Time) []Bucket {
	out := make([]Bucket, len(bounds)+1)
	for i, b := range bounds {
		out[i].Upto = b
	}
	for _, n := range notes {
		if n.Outcome != "ok" || n.Begin.Before(since) {
			continue
		}
		at := slices.IndexFunc(bounds, func(b time.Duration) bool { return n.End.Sub(n.Begin) <= b })
		if at < 0 {
			at = len(bounds)
		}
		out[at].Count++
	}
	return out
}

// Record is everything about one drill, for whoever asks later.
type Record struct {
	Drill   string    `json:"drill"`
	Cluster string    `json:"cluster"`
	Target  string    `json:"target"` // NAMESPACE/SERVICE
	Did     []string  `json:"did"`    // in order
	Began   time.Time `json:"began"`
	Fault   time.Time `json:"fault,omitzero"`
	Undone  time.Time `json:"undone,omitzero"`
	// Aborted says why the drill ended before its time; "" if it did not.
	Aborted string `json:"aborted,omitempty"`
	// Recovered is how long after the undoing every flow worked for a second without a fault; -1 if it never did.
	Recovered time.Duration          `json:"recovered"`
	Flows     map[string]sight.Sight `json:"flows"`
	Answers   []Bucket               `json:"answers"`
}

// String is what people read.
func (r Record) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "drill %s in %s on %s, %s\n", r.Drill, r.Cluster, r.Target, r.Began.Format(time.RFC3339))
	for _, d := range r.Did {
		fmt.Fprintf(&b, "  %s\n", d)
	}
	fmt.Fprintf(&b, "\n%-8s %12s %12s %12s %12s %7s %7s %6s\n", "flow", "longest gap", "first good", "first error", "last error", "resets", "errors", "stuck")
	for _, name := range sortedKeys(r.Flows) {
		s := r.Flows[name]
		fmt.Fprintf(&b, "%-8s %12s %12s %12s %12s %7d %7d %6v\n", name, show(&s.Gap), show(s.First), show(s.Told), show(s.Clear), s.Resets, s.Errors, s.Stuck)
	}
	b.WriteString("\nanswers took\n")
	most := 1
	for _, k := range r.Answers {
		most = max(most, k.Count)
	}
	for _, k := range r.Answers {
		if k.Count == 0 {
			continue
		}
		label := "longer"
		if k.Upto > 0 {
			label = "≤ " + k.Upto.String()
		}
		fmt.Fprintf(&b, "  %-9s %7d %s\n", label, k.Count, strings.Repeat("█", max(1, k.Count*40/most)))
	}
	switch {
	case r.Aborted != "":
		fmt.Fprintf(&b, "\naborted: %s\n", r.Aborted)
	case r.Recovered < 0:
		b.WriteString("\nnot recovered: look at `seaway status`\n")
	default:
		fmt.Fprintf(&b, "\nrecovered %s after it was undone\n", r.Recovered.Round(time.Millisecond))
	}
	return b.String()
}

func sortedKeys(m map[string]sight.Sight) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func show(d *time.Duration) string {
	if d == nil {
		return "-"
	}
	return d.Round(time.Millisecond).String()
}
