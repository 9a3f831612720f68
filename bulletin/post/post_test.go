package post

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/delta"
	"seaway.dev/seaway/fleet"
)

// fleetOf is some clusters with a carrier each, and links between them that carry bytes as long as they are not cut.
type fleetOf struct {
	t       *testing.T
	keys    map[string]ed25519.PrivateKey
	office  map[string]*Office
	store   map[string]*bulletin.Store
	last    map[string]*fleet.Bulletin
	cuts    map[[2]string]context.CancelFunc
	carried atomic.Int64
	wg      sync.WaitGroup
}

func newFleet(t *testing.T, n int) *fleetOf {
	f := &fleetOf{t: t, keys: map[string]ed25519.PrivateKey{}, office: map[string]*Office{}, store: map[string]*bulletin.Store{}, last: map[string]*fleet.Bulletin{}, cuts: map[[2]string]context.CancelFunc{}}
	for i := range n {
		name := fmt.Sprintf("c%d", i+1)
		seed := make([]byte, ed25519.SeedSize)
		seed[0] = byte(i + 1)
		f.keys[name] = ed25519.NewKeyFromSeed(seed)
		f.store[name] = bulletin.NewStore(f.signer)
		f.office[name] = New(Config{Cluster: name, Node: "n", Store: f.store[name]})
	}
	t.Cleanup(func() {
		for _, cut := range f.cuts {
			cut()
		}
		f.wg.Wait()
	})
	return f
}

func (f *fleetOf) signer(cluster string) (fleet.Key, bool) {
	k, ok := f.keys[cluster]
	if !ok {
		return fleet.Key{}, false
	}
	return fleet.Key(k.Public().(ed25519.PublicKey)), true
}

// counting counts the letters that are written to a connection: every frame begins a write or follows another one.
type counting struct {
	net.Conn
	f *fleetOf
}

func (c counting) Write(b []byte) (int, error) {
	for rest := b; len(rest) >= 5; {
		if rest[0] == 'L' {
			c.f.carried.Add(1)
		}
		n := int(rest[1])<<24 | int(rest[2])<<16 | int(rest[3])<<8 | int(rest[4])
		rest = rest[5+n:]
	}
	return c.Conn.Write(b)
}

// link connects two clusters; dead only: silent, as a cut cable is.
func (f *fleetOf) link(a, b string) {
	ctx, cancel := context.WithCancel(context.Background())
	f.cuts[[2]string{a, b}] = cancel
	x, y := net.Pipe()
	f.wg.Go(func() { _ = f.office[a].Serve(ctx, counting{x, f}, Peer{b, "n"}) })
	f.wg.Go(func() { _ = f.office[b].Serve(ctx, counting{y, f}, Peer{a, "n"}) })
}

func (f *fleetOf) cut(a, b string) { f.cuts[[2]string{a, b}](); delete(f.cuts, [2]string{a, b}) }

func (f *fleetOf) mesh() {
	for a := range f.office {
		for b := range f.office {
			if a < b {
				f.link(a, b)
			}
		}
	}
}

// say has a cluster say something new.
func (f *fleetOf) say(cluster string, whole bool) {
	f.t.Helper()
	now := &fleet.Bulletin{Version: 1, Cluster: cluster, Epoch: 1, Rev: 1}
	var d *fleet.BulletinDelta
	if old := f.last[cluster]; old != nil {
		now.Rev = old.Rev + 1
		now.Region = fmt.Sprint(now.Rev)
		if !whole {
			d = delta.Bulletin(old, now)
		}
	}
	f.last[cluster] = now
	l, err := bulletin.Write(now, d, f.keys[cluster])
	if err == nil {
		err = f.office[cluster].Post(l)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// behind lists who lacks what of the newest.
func (f *fleetOf) behind() (out []string) {
	for at, s := range f.store {
		have := s.Have()
		for of, b := range f.last {
			if have[of].Rev != b.Rev {
				out = append(out, fmt.Sprintf("%s has %d of %s, not %d", at, have[of].Rev, of, b.Rev))
			}
		}
	}
	return out
}

func (f *fleetOf) blames() (out []string) {
	for at, o := range f.office {
		for _, st := range o.States() {
			for reason, n := range st.Refused {
				out = append(out, fmt.Sprintf("%s of %s: %s %d", at, st.Peer, reason, n))
			}
		}
	}
	return out
}

func TestNewsGoesStraightAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 6)
		for c := range f.office {
			f.say(c, true)
		}
		f.mesh()
		time.Sleep(30 * time.Second)
		if b := f.behind(); b != nil {
			t.Fatal(b)
		}
		f.carried.Store(0)
		began := time.Now()
		for range 10 {
			f.say("c1", false)
			synctest.Wait()
			if b := f.behind(); b != nil {
				t.Fatal(b)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("news waited %s", took)
		}
		time.Sleep(time.Minute)
		if n := f.carried.Load(); n != 50 {
			t.Errorf("10 letters to 5 clusters took %d letters on the wire", n)
		}
	})
}

func TestACutPairHearsByAThird(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 4)
		f.mesh()
		for c := range f.office {
			f.say(c, true)
		}
		time.Sleep(30 * time.Second)
		f.cut("c1", "c2")
		synctest.Wait()
		began := time.Now()
		f.say("c1", false)
		for len(f.behind()) > 0 && time.Since(began) < time.Minute {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(began); took > 20*time.Millisecond {
			t.Errorf("the first news after the cut took %s", took)
		}
		f.carried.Store(0)
		f.say("c1", false)
		synctest.Wait()
		if b := f.behind(); b != nil {
			t.Error(b)
		}
		if n := f.carried.Load(); n != 4 { // to c3 and c4, and to c2 from both
			t.Errorf("the letter went over %d links, want 4", n)
		}
	})
}

func TestChainAndReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 4) // c1 - c2 - c3 - c4
		f.say("c1", true)
		for i := range 3 {
			f.link(fmt.Sprintf("c%d", i+1), fmt.Sprintf("c%d", i+2))
		}
		time.Sleep(time.Minute)
		if b := f.behind(); b != nil {
			t.Fatal(b)
		}
		f.say("c1", false)
		synctest.Wait()
		if b := f.behind(); b != nil {
			t.Errorf("over two carriers: %v", b)
		}
		f.cut("c3", "c4")
		for range 300 {
			f.say("c1", false)
		}
		time.Sleep(time.Second)
		f.link("c3", "c4")
		time.Sleep(time.Second)
		if b := f.behind(); b != nil {
			t.Errorf("after coming back: %v", b)
		}
		if b := f.blames(); b != nil {
			t.Error(b)
		}
	})
}

// TestNobodyHonestIsBlamed: links come and go, everybody talks, with deltas and wholes; in the end everyone knows
// everything and nobody was refused anything.
func TestNobodyHonestIsBlamed(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			f := newFleet(t, 5)
			f.mesh()
			names := []string{"c1", "c2", "c3", "c4", "c5"}
			for range 400 {
				a, b := names[r.IntN(5)], names[r.IntN(5)]
				switch k := [2]string{min(a, b), max(a, b)}; {
				case a == b || r.IntN(4) > 0:
					f.say(a, r.IntN(6) == 0)
				case f.cuts[k] != nil:
					f.cut(k[0], k[1])
				default:
					f.link(k[0], k[1])
				}
				time.Sleep(time.Duration(r.IntN(800)) * time.Millisecond)
			}
			for i, a := range names {
				for _, b := range names[i+1:] {
					if f.cuts[[2]string{a, b}] == nil {
						f.link(a, b)
					}
				}
			}
			time.Sleep(30 * time.Second)
			if b := f.behind(); b != nil {
				t.Errorf("seed %d: %v", seed, b)
			}
			if b := f.blames(); b != nil {
				t.Errorf("seed %d: %v", seed, b)
			}
		})
	}
}

// TestBadPeers: each sort of misbehaviour is refused, counted by its name and, if it goes on, shut out; what is held
// stays as it was.
func TestBadPeers(t *testing.T) {
	stranger := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	for _, c := range []struct {
		name   string
		reason bulletin.Reason
		shut   bool
		do     func(f *fleetOf, w io.Writer)
	}{
		{"bytes that are nothing", bulletin.Garbage, true, func(f *fleetOf, w io.Writer) { _, _ = w.Write([]byte("GET / HTTP/1.1\r\n\r\n      ")) }},
		{"a letter that is none", bulletin.Garbage, true, func(f *fleetOf, w io.Writer) { _, _ = w.Write([]byte{'L', 0, 0, 0, 3, 1, 2, 3}) }},
		{"a frame beyond all bounds", bulletin.Garbage, true, func(f *fleetOf, w io.Writer) { _, _ = w.Write([]byte{'V', 0x7f, 0, 0, 0}) }},
		{"another cluster's letter, signed by itself", bulletin.Forged, false, func(f *fleetOf, w io.Writer) {
			l, _ := bulletin.Write(&fleet.Bulletin{Version: 1, Cluster: "c3", Epoch: 9, Rev: 9}, nil, f.keys["c2"])
			send(w, l)
		}},
		{"a letter of nobody", bulletin.Stranger, false, func(f *fleetOf, w io.Writer) {
			l, _ := bulletin.Write(&fleet.Bulletin{Version: 1, Cluster: "c77", Epoch: 9, Rev: 9}, nil, stranger)
			send(w, l)
		}},
		{"forgeries without end", bulletin.Flood, true, func(f *fleetOf, w io.Writer) {
			l, _ := bulletin.Write(&fleet.Bulletin{Version: 1, Cluster: "c3", Epoch: 9, Rev: 9}, nil, stranger)
			for range 200 {
				send(w, l)
			}
		}},
		{"the same over and over", bulletin.Replay, true, func(f *fleetOf, w io.Writer) {
			l, _ := bulletin.Write(f.last["c3"], nil, f.keys["c3"])
			for range 200 {
				send(w, l)
			}
		}},
		{"talk without end", bulletin.Flood, true, func(f *fleetOf, w io.Writer) {
			for range 1000 {
				send(w, &bulletin.Have{All: true})
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 3)
				for range 3 {
					f.say("c3", true)
				}
				f.link("c1", "c3")
				time.Sleep(time.Second)
				x, y := net.Pipe()
				done := make(chan error, 1)
				go func() { done <- f.office["c1"].Serve(t.Context(), x, Peer{"c2", "n"}) }()
				go func() { _, _ = io.Copy(io.Discard, y) }()
				send(y, bulletin.NewHello("c2", "n"))
				send(y, &bulletin.Have{All: true})
				c.do(f, y)
				time.Sleep(time.Second)
				st := f.office["c1"].States()[0]
				if st.Peer != "c2/n" || st.Refused[string(c.reason)] == 0 {
					t.Errorf("not named: %+v", st)
				}
				select {
				case err := <-done:
					if !errors.Is(err, ErrShut) || !c.shut {
						t.Errorf("ended with %v", err)
					}
					p, q := net.Pipe()
					defer q.Close()
					if err := f.office["c1"].Serve(t.Context(), p, Peer{"c2", "n"}); !errors.Is(err, ErrShut) {
						t.Errorf("let in again at once: %v", err)
					}
				default:
					if c.shut {
						t.Error("not shut out")
					}
					x.Close()
					<-done
				}
				y.Close()
				if have := f.store["c1"].Have(); have["c3"].Rev != 3 || len(have) != 1 {
					t.Errorf("it holds %v", have)
				}
				f.say("c3", false)
				synctest.Wait()
				if have := f.store["c1"].Have(); have["c3"].Rev != 4 {
					t.Errorf("the others' news does not come any more: %v", have)
				}
			})
		})
	}
}

func send(w io.Writer, say any) {
	b, err := bulletin.AppendFrame(nil, say)
	if err != nil {
		panic(err)
	}
	_, _ = w.Write(b) // it may have been shut out
}

// TestSilence: a peer that says nothing, or takes nothing, ends.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 2)
		x, y := net.Pipe()
		defer y.Close()
		began := time.Now()
		if err := f.office["c1"].Serve(t.Context(), x, Peer{"c2", "n"}); err == nil || time.Since(began) > 2*silence {
			t.Errorf("ended after %s with %v", time.Since(began), err)
		}
	})
}
