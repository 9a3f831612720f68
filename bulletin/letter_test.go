package bulletin

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"testing"

	"seaway.dev/seaway/delta"
	"seaway.dev/seaway/fleet"
)

func keyOf(n byte) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	return ed25519.NewKeyFromSeed(seed)
}

func public(k ed25519.PrivateKey) fleet.Key { return fleet.Key(k.Public().(ed25519.PublicKey)) }

func letter(t testing.TB, epoch, rev, base uint64) *Letter {
	t.Helper()
	b := &fleet.Bulletin{Version: 1, Cluster: "c1", Epoch: epoch, Rev: rev}
	var d *fleet.BulletinDelta
	if base > 0 {
		d = &fleet.BulletinDelta{Version: 1, Cluster: "c1", Epoch: epoch, Rev: rev, Base: base}
	}
	l, err := Write(b, d, keyOf(1))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestEveryPartOfALetterIsSigned changes each of them.
func TestEveryPartOfALetterIsSigned(t *testing.T) {
	key := public(keyOf(1))
	l := letter(t, 5, 2, 1)
	if !l.SignedBy(key) || l.SignedBy(public(keyOf(2))) || l.SignedBy(fleet.Key{}) {
		t.Fatal("the signature proves nothing")
	}
	for name, change := range map[string]func(*Letter){
		"cluster": func(l *Letter) { l.Cluster = "c2" },
		"epoch":   func(l *Letter) { l.Epoch++ },
		"rev":     func(l *Letter) { l.Rev++ },
		"base":    func(l *Letter) { l.Base = 0 },
		"body":    func(l *Letter) { l.Body = append(bytes.Clone(l.Body), ' ') },
		"name and epoch shifted": func(l *Letter) {
			l.Cluster, l.Epoch = "c1\x00", l.Epoch<<8
		},
	} {
		other := *l
		change(&other)
		if other.SignedBy(key) {
			t.Errorf("%s is not signed", name)
		}
	}
}

func TestStore(t *testing.T) {
	s := NewStore(func(c string) (fleet.Key, bool) { return public(keyOf(1)), c == "c1" })
	put := func(l *Letter) string {
		news, err := s.Put(l)
		var r *Refused
		switch {
		case errors.As(err, &r):
			return string(r.Reason)
		case errors.Is(err, ErrGap):
			return "gap"
		case news:
			return "news"
		}
		return "old"
	}
	forged := letter(t, 9, 9, 0)
	forged.Rev = 10
	stranger := letter(t, 1, 1, 0)
	stranger.Cluster = "c9"
	for i, step := range []struct {
		l    *Letter
		want string
	}{
		{letter(t, 1, 2, 1), "gap"}, {letter(t, 1, 1, 0), "news"}, {letter(t, 1, 1, 0), "old"}, {letter(t, 1, 2, 1), "news"},
		{letter(t, 1, 4, 3), "gap"}, {letter(t, 1, 3, 2), "news"}, {forged, "Forged"}, {stranger, "Stranger"},
		{letter(t, 1, 3, 0), "news"}, // shortens what is held
		{letter(t, 1, 3, 0), "old"}, {letter(t, 1, 3, 2), "old"}, {letter(t, 2, 2, 1), "gap"}, {letter(t, 2, 1, 0), "news"}, {letter(t, 1, 9, 0), "old"},
	} {
		if got := put(step.l); got != step.want {
			t.Errorf("step %d: %s, want %s", i, got, step.want)
		}
	}
	for rev := uint64(2); ; rev++ {
		got := put(letter(t, 2, rev, rev-1))
		if got == string(Flood) && rev > maxChain {
			break
		}
		if got != "news" {
			t.Fatalf("delta %d: %s", rev, got)
		}
	}
	have := s.Have()["c1"]
	if n := len(s.Since("c1", Version{2, have.Rev - 3})); n != 3 {
		t.Errorf("%d letters for somebody three behind", n)
	}
	if l := s.Since("c1", Version{}); len(l) != maxChain+1 || l[0].Base != 0 {
		t.Errorf("%d letters for somebody new", len(l))
	}
	if s.Since("c1", have) != nil || s.Since("c1", Version{3, 1}) != nil {
		t.Error("letters for somebody who has all")
	}
	s.Keep(func(string) bool { return false })
	if len(s.Have()) != 0 {
		t.Error("a cluster that left is remembered")
	}
}

// FuzzFrames reads whatever comes: no panic, no more memory than the limits, and what is understood says the same when
// it is written again.
func FuzzFrames(f *testing.F) {
	for _, say := range []any{NewHello("c1", "n1"), &Have{All: true, Have: map[string]Version{"c1": {1, 2}}}, &Want{Clusters: []string{"c3"}}, letter(f, 5, 2, 1)} {
		b, err := AppendFrame(nil, say)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			say, err := ReadFrame(r)
			if err != nil {
				if !errors.Is(err, ErrGarbage) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("an error of no kind: %v", err)
				}
				return
			}
			if say == nil {
				continue
			}
			one, err := AppendFrame(nil, say)
			if err != nil {
				t.Fatalf("%+v was read and cannot be written: %v", say, err)
			}
			again, err := ReadFrame(bytes.NewReader(one))
			if err != nil {
				t.Fatalf("%+v was written and cannot be read: %v", say, err)
			}
			two, err := AppendFrame(nil, again)
			if err != nil || !bytes.Equal(one, two) {
				t.Fatalf("%+v became %+v (%v)", say, again, err)
			}
		}
	})
}

// FuzzDelta reads whatever a cluster may have signed and applies it: no panic, and the result is one that can be told
// whole.
func FuzzDelta(f *testing.F) {
	f.Add([]byte(`{"version":1,"cluster":"c1","epoch":1,"rev":2,"base":1,"pods":[{"name":"b"},{"name":"a"},{"name":"a"}],"podsGone":["x","shop/p"],"exports":[{"name":"s","endpoints":[{"pod":"p"}],"gone":["//"]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := DecodeDelta(body)
		if err != nil {
			return
		}
		old := &fleet.Bulletin{Version: 1, Cluster: d.Cluster, Epoch: d.Epoch, Rev: d.Base,
			Pods: []fleet.Pod{{Cluster: d.Cluster, Namespace: "shop", Name: "p"}}, Exports: []fleet.Export{{Namespace: "shop", Name: "s"}}}
		now, err := delta.ApplyBulletin(old, d)
		if err != nil {
			t.Fatalf("on its own base: %v", err)
		}
		if Limits(now) != nil {
			return
		}
		whole, err := Encode(now)
		if err != nil {
			return // too large
		}
		if _, err := Decode(whole); err != nil {
			t.Fatalf("cannot be told whole: %v", err)
		}
		if _, _, err := Check(now, now.Cluster, nil); err != nil {
			t.Logf("refused: %v", err)
		}
	})
}
