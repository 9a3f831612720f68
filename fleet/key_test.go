package fleet

import "testing"

func TestKeyName(t *testing.T) {
	for name, want := range map[string]struct {
		slice      string
		generation uint64
	}{
		"pay": {"pay", 0}, "pay@1": {"pay", 1}, "pay@12": {"pay", 12}, "pay@0": {"pay@0", 0}, "pay@01": {"pay@01", 0},
		"pay@": {"pay@", 0}, "pay@x": {"pay@x", 0}, "pay@-1": {"pay@-1", 0}, "": {"", 0}, "pay@1@2": {"pay@1@2", 0},
	} {
		if s, g := SplitKeyName(name); s != want.slice || g != want.generation {
			t.Errorf("%q: %q %d, want %q %d", name, s, g, want.slice, want.generation)
		}
	}
	n := Node{Keys: map[string]Key{"pay@3": {1}, "pay": {2}, "payment@4": {3}}}
	if g := n.Generations("pay"); len(g) != 2 || g[0] != 0 || g[1] != 3 || !n.On("payment") || n.On("web") {
		t.Errorf("generations %v", g)
	}
}

func FuzzKeyName(f *testing.F) {
	f.Add("pay@1")
	f.Fuzz(func(t *testing.T, name string) {
		if s, g := SplitKeyName(name); KeyName(s, g) != name {
			t.Errorf("%q is of slice %q, generation %d, whose name is %q", name, s, g, KeyName(s, g))
		}
	})
}
