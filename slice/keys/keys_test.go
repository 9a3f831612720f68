package keys

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func peer(published []uint64, live ...uint64) Peer {
	p := Peer{Published: published, Live: map[uint64]bool{}}
	for _, g := range live {
		p.Live[g] = true
	}
	return p
}

func TestChange(t *testing.T) {
	r := NewRing([]uint64{2}, start)
	at := func(after time.Duration, target uint64, heard uint64, peers ...Peer) string {
		r.Step(View{Now: start.Add(after), Target: target, Peers: peers, Heard: map[uint64]uint64{2: heard}})
		return fmt.Sprint(r.Held())
	}
	old, both := []uint64{2}, []uint64{2, 3}
	for _, c := range []struct {
		what  string
		after time.Duration
		heard uint64
		peers []Peer
		want  string
	}{
		{"told of 3", 0, 100, []Peer{peer(old, 2), peer(old, 2)}, "[2 3]"},
		{"one has published", 1 * time.Second, 200, []Peer{peer(both, 2), peer(old, 2)}, "[2 3]"},
		{"one is live", 2 * time.Second, 300, []Peer{peer(both, 2, 3), peer(old, 2)}, "[2 3]"},
		{"an hour later the other has not moved", time.Hour, 300, []Peer{peer(both, 2, 3), peer(old, 2)}, "[2 3]"},
		{"both are live", time.Hour + 1*time.Second, 300, []Peer{peer(both, 2, 3), peer(both, 2, 3)}, "[2 3]"},
		{"something was heard", time.Hour + 6*time.Second, 400, []Peer{peer(both, 2, 3), peer(both, 2, 3)}, "[2 3]"},
		{"not long enough", time.Hour + 10*time.Second, 400, []Peer{peer(both, 2, 3), peer(both, 2, 3)}, "[2 3]"},
		{"rest over", time.Hour + 11*time.Second, 400, []Peer{peer(both, 2, 3), peer(both, 2, 3)}, "[3]"},
		{"peers drop it", time.Hour + 12*time.Second, 400, []Peer{peer([]uint64{3}, 3), peer(both, 3)}, "[3]"},
	} {
		if got := at(c.after, 3, c.heard, c.peers...); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

func TestLaggards(t *testing.T) {
	r := NewRing(nil, start)
	r.Step(View{Now: start, Target: 5, Peers: []Peer{peer([]uint64{0}), peer([]uint64{0, 5})}})
	if got := fmt.Sprint(r.Held()); got != "[0 5]" {
		t.Errorf("a newcomer beside one that has never changed holds %s", got)
	}
	// The one that has a key of the newest generation and no session is waited for no longer than a session can last.
	both := []uint64{0, 5}
	for after, want := range map[time.Duration]string{Gone - time.Second: "[0 5]", Gone + time.Minute: "[5]"} {
		r := NewRing(both, start)
		for at := time.Duration(0); at <= after; at += time.Second {
			r.Step(View{Now: start.Add(at), Target: 5, Peers: []Peer{peer(both)}})
		}
		if got := fmt.Sprint(r.Held()); got != want {
			t.Errorf("after %v without a session: %s, want %s", after, got, want)
		}
	}
	// No more than Most at once.
	r = NewRing([]uint64{1, 2, 3, 4, 5, 6}, start)
	r.Step(View{Now: start, Target: 7, Peers: []Peer{peer([]uint64{1, 2, 3}, 1)}})
	if got := fmt.Sprint(r.Held()); got != "[1 2 3 4 5 6]" {
		t.Errorf("a seventh generation: %s", got)
	}
	// A kernel that has one device for a slice keeps what it has.
	r = NewRing([]uint64{1}, start)
	r.Step(View{Now: start, Target: 4, Single: true, Peers: []Peer{peer([]uint64{1, 4}, 1)}})
	if got := fmt.Sprint(r.Held()); got != "[1]" {
		t.Errorf("a single one: %s", got)
	}
}

// TestNobodyIsCutOff: nodes hear of changes and of each other late and in any order; whatever happens, each two have a
// generation in common by which they have a session, and in the end all have the newest one and no other.
func TestNobodyIsCutOff(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		const n = 4
		type news struct{ held [n][]uint64 }
		rings, targets := make([]*Ring, n), make([]uint64, n)
		live := map[[2]int]map[uint64]bool{}
		var seen [n]news
		for i := range n {
			rings[i] = NewRing([]uint64{0}, start)
			for j := range n {
				seen[i].held[j] = []uint64{0}
				live[[2]int{min(i, j), max(i, j)}] = map[uint64]bool{0: true}
			}
		}
		target := uint64(0)
		for step := range 300 {
			now := start.Add(time.Duration(step) * time.Second)
			all := true // the hub begins a change once everybody has published keys of the one before
			for _, r := range rings {
				all = all && slices.Contains(r.Held(), target)
			}
			if step < 150 && all && rnd.IntN(4) == 0 {
				target++
			}
			for i := range n {
				if rnd.IntN(5) == 0 {
					targets[i] = target
				}
				for j := range n {
					if rnd.IntN(3) == 0 {
						seen[i].held[j] = rings[j].Held()
					}
				}
				v := View{Now: now, Target: targets[i]}
				for j := range n {
					if j != i {
						p := Peer{Published: seen[i].held[j], Live: map[uint64]bool{}}
						for g := range live[[2]int{min(i, j), max(i, j)}] {
							p.Live[g] = slices.Contains(p.Published, g)
						}
						v.Peers = append(v.Peers, p)
					}
				}
				rings[i].Step(v)
			}
			for pair, s := range live {
				i, j := pair[0], pair[1]
				if i == j {
					continue
				}
				for _, g := range rings[i].Held() { // both know of each other's: sooner or later they shake hands
					if slices.Contains(seen[i].held[j], g) && slices.Contains(seen[j].held[i], g) && slices.Contains(rings[j].Held(), g) && rnd.IntN(3) == 0 {
						s[g] = true
					}
				}
				common := false
				for g := range s {
					if !slices.Contains(rings[i].Held(), g) || !slices.Contains(rings[j].Held(), g) {
						delete(s, g)
						continue
					}
					common = true
				}
				if !common {
					t.Fatalf("seed %d, step %d: nodes %d %v and %d %v have no session", seed, step, i, rings[i].Held(), j, rings[j].Held())
				}
			}
		}
		for i := range n {
			if got := rings[i].Held(); !slices.Equal(got, []uint64{target}) {
				t.Fatalf("seed %d: node %d holds %v in the end, want %d alone", seed, i, got, target)
			}
		}
	}
}
