package story

import (
	"strings"
	"testing"

	"seaway.dev/seaway/e2e/stage"
)

func cast() []target {
	pod := func(c, ns, n, ip string) stage.Pod { return stage.Pod{Cluster: c, Namespace: ns, Name: n, IP: ip} }
	return []target{
		{pod("c1", "red", "a", "10.244.1.2"), "red", []string{"10.77.0.1", "fd00::1"}},
		{pod("c2", "red", "b", "10.244.1.2"), "red", []string{"10.77.0.2", "fd00::2"}},
		{pod("c2", "red", "c", "10.244.1.3"), "red", []string{"10.77.0.3", "fd00::3"}},
		{pod("c1", "blue", "d", "10.244.1.4"), "blue", []string{"10.77.0.1"}}, // the same address as a
	}
}

// world delivers what is honest, and lets through one kind that it should not.
func world(ts []target, shots []shot, leak string) []map[string]bool {
	seen := make([]map[string]bool, len(ts))
	for i := range seen {
		seen[i] = map[string]bool{}
	}
	for _, s := range shots {
		at := -1
		if s.kind == "own" || s.kind == leak {
			at = s.to
		} else if s.kind == "across" {
			for k, t := range ts { // whoever has that address in the sender's own slice
				if k != s.from && t.slice == ts[s.from].slice && t.addrs[0] == s.dst {
					at = k
				}
			}
		}
		if at >= 0 {
			seen[at][s.mark("r")] = true
		}
	}
	return seen
}

func TestProbesCoverEveryKindAndFamily(t *testing.T) {
	n := map[string]int{}
	for _, s := range planShots(cast()) {
		n[s.kind]++
		if strings.Contains(s.src, ":") != strings.Contains(s.dst, ":") {
			t.Errorf("%v mixes families", s)
		}
	}
	// three red pods and both families: 6 ordered pairs twice; each red to blue and back in IPv4.
	if n["own"] != 12 || n["forged"] != 12 || n["stranger"] != 12 || n["across"] != 6 || n["cni"] != 12 {
		t.Errorf("%v", n)
	}
	if n["posing"] == 0 {
		t.Errorf("nobody poses: %v", n)
	}
}

func TestEachKindOfBreachIsNoticed(t *testing.T) {
	ts := cast()
	shots := planShots(ts)
	if v := count(ts, shots, world(ts, shots, ""), "r"); v.missing() != nil || v.breach() != nil {
		t.Fatalf("an honest world: %v %v", v.missing(), v.breach())
	}
	for _, kind := range kinds[1:] {
		if v := count(ts, shots, world(ts, shots, kind), "r"); v.breach() == nil {
			t.Errorf("a world that lets %q through was called tight:\n%s", kind, v)
		}
	}
	if v := count(ts, shots, make([]map[string]bool, len(ts)), "r"); v.missing() == nil {
		t.Error("a world in which nothing arrives proves nothing, and was believed")
	}
}
