package pilot

import (
	"testing"
)

// TestRestartLosesNothing: a pilot that was saved and restored every hour decides like one that never stopped, but for
// HPA's shadow, whose own world begins anew.
func TestRestartLosesNothing(t *testing.T) {
	w := usual()
	p := New(w.terms, Options{})
	w.run(t, p, 86400)
	b, err := p.Save()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes after a day", len(b))
	if len(b) > 50<<10 {
		t.Errorf("%d bytes: want at most 50 KiB", len(b))
	}
	q := New(w.terms, Options{})
	if err := q.Restore(b); err != nil {
		t.Fatal(err)
	}
	p.state.Capacity.Refresh() // it is refreshed now and then; a restored one was just now
	if a, b := p.state.Capacity.Bad(100, 60), q.state.Capacity.Bad(100, 60); a != b {
		t.Errorf("capacity: %g before, %g after", a, b)
	}
	at := p.state.Newest.At.Add(120e9)
	if a, b := p.state.Forecast.At(at), q.state.Forecast.At(at); a != b && a.Mid/b.Mid > 1.02 {
		t.Errorf("forecast: %v before, %v after", a, b)
	}
	a, b1 := p.leads()
	if c, d := q.leads(); a != c || b1 != d {
		t.Errorf("leads: %v, %v before, %v, %v after", a, b1, c, d)
	}
	c, err := q.Save()
	if err != nil || len(c) == 0 {
		t.Errorf("a restored pilot cannot be saved: %v", err)
	}
}

func FuzzRestore(f *testing.F) {
	w := usual()
	p := New(w.terms, Options{})
	w.run(f, p, 7200)
	b, _ := p.Save()
	f.Add(b)
	f.Add([]byte("nonsense"))
	f.Fuzz(func(t *testing.T, b []byte) {
		q := New(w.terms, Options{})
		if q.Restore(b) == nil {
			w.run(t, q, 300)
		}
	})
}
