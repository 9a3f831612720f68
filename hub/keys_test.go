package hub

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/record"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/fleet"
)

// holding makes a member with one node that has keys of some generations on slice pay.
func holding(name string, generations ...uint64) member {
	m := at(name, 1)
	m.bulletin.Nodes = []fleet.Node{{Name: "n1", Cluster: name, Keys: map[string]fleet.Key{}}}
	for _, g := range generations {
		m.bulletin.Nodes[0].Keys[fleet.KeyName("pay", g)] = fleet.Key{byte(g + 1)}
	}
	return m
}

// TestRotate: a change is asked for, waits for the one before, is counted, and comes by itself where that is wanted.
func TestRotate(t *testing.T) {
	sl := pay("10.77.0.0/16")
	now := t0
	look := func(asked string, c1, c2 []uint64) string {
		if asked != "" {
			sl.Annotations = map[string]string{v1alpha1.RotateAnnotation: asked}
		}
		status, err := judge(sl, nil, []member{holding("c1", c1...), holding("c2", c2...)}, now)
		if err != nil {
			t.Fatal(err)
		}
		sl.Status = status
		if status.Keys == nil {
			return "none"
		}
		out := fmt.Sprintf("%d %d/%d/%d", status.Keys.Generation, status.Keys.New, status.Keys.Done, status.Keys.Nodes)
		for _, c := range status.Conditions {
			if c.Type == v1alpha1.SliceKeysChanging {
				_, out2, _ := strings.Cut(c.Message, "not done: ")
				out += " " + out2
			}
		}
		return out
	}
	g := func(g ...uint64) []uint64 { return g }
	for _, c := range []struct {
		what, asked string
		after       time.Duration
		c1, c2      []uint64
		want        string
	}{
		{"nobody asks", "", 0, g(0), g(0), "none"},
		{"asked for", "a", 0, g(0), g(0), "1 0/0/2"},
		{"one has a key", "a", 0, g(0, 1), g(0), "1 1/0/2"},
		{"asked again: the first goes on", "b", 0, g(0, 1), g(0), "1 1/0/2"},
		{"all have a key: the second begins", "b", 0, g(0, 1), g(0, 1), "2 0/0/2"},
		{"done on one", "b", 0, g(2), g(0, 1, 2), "2 2/1/2"},
		{"done", "b", 0, g(2), g(2), "2 2/2/2"},
		{"one does not move", "c", 0, g(2), g(2), "3 0/0/2"},
		{"and is not waited for after a while", "d", stuckAfter, g(2, 3), g(2), "4 0/0/2"},
	} {
		now = now.Add(c.after)
		if got := look(c.asked, c.c1, c.c2); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
	if got := look("d", g(4), g(2, 3, 4)); !strings.Contains(got, "c2/n1") || strings.Contains(got, "c1/n1") {
		t.Errorf("who is behind: %s", got)
	}

	sl = pay("10.77.0.0/16")
	sl.Spec.KeyRotation = "1h"
	var last string
	for range 3 {
		last = look("", g(uint64(keysOf(sl))), g(uint64(keysOf(sl))))
		wait := again(sl, sl.Status.Keys, now)
		if wait < 54*time.Minute || wait > time.Hour {
			t.Errorf("the next look is in %v", wait)
		}
		now = now.Add(wait)
	}
	if !strings.HasPrefix(last, "2 ") {
		t.Errorf("after two hours the keys are %s", last)
	}
}

func keysOf(sl *v1alpha1.Slice) int64 {
	if sl.Status.Keys == nil {
		return 0
	}
	return sl.Status.Keys.Generation
}

// TestChangesAreTold: events say when a change of keys began, why, and when all nodes were done; each once.
func TestChangesAreTold(t *testing.T) {
	sl := pay("10.77.0.0/16")
	events := record.NewFakeRecorder(20)
	now := t0
	s := sliceLoop{log: slog.New(slog.DiscardHandler), events: events, heard: newHearing(func() time.Time { return now })}
	look := func(after time.Duration, c1, c2 []uint64) string {
		now = now.Add(after)
		status, err := judge(sl, nil, []member{holding("c1", c1...), holding("c2", c2...)}, now)
		if err != nil {
			t.Fatal(err)
		}
		before := sl.DeepCopy()
		sl.Status = status
		s.audit(before, sl)
		var told []string
		for {
			select {
			case e := <-events.Events:
				told = append(told, e)
				continue
			default:
			}
			return strings.Join(told, "; ")
		}
	}
	g := func(g ...uint64) []uint64 { return g }
	for _, c := range []struct {
		what, asked, schedule string
		after                 time.Duration
		c1, c2                []uint64
		want                  string
	}{
		{"nobody asks", "", "", 0, g(0), g(0), ""},
		{"asked for", "noon", "", 0, g(0), g(0), "Normal KeysChanging the nodes' keys are changed to generation 1 (asked for at noon): 2 nodes"},
		{"going on", "noon", "", time.Second, g(0, 1), g(0), ""},
		{"the hub is another", "noon", "", time.Second, g(0, 1), g(0, 1), ""},
		{"one is done", "noon", "", time.Second, g(1), g(0, 1), ""},
		{"done", "noon", "", 10 * time.Second, g(1), g(1), "Normal KeysChanged 2 nodes of 2 have keys of generation 1 and no older ones, 13s after the change began"},
		{"nothing new", "noon", "", time.Minute, g(1), g(1), ""},
		{"a schedule, not due", "noon", "1h", time.Minute, g(1), g(1), ""},
		{"due", "noon", "1h", time.Hour, g(1), g(1), "Normal KeysChanging the nodes' keys are changed to generation 2 (on schedule): 2 nodes"},
		{"one is away for hours", "noon", "1h", 50 * time.Minute, g(1, 2), g(1), ""},
		{"and comes back", "noon", "1h", time.Minute, g(2), g(2), "Normal KeysChanged 2 nodes of 2 have keys of generation 2 and no older ones, 51m0s after the change began"},
	} {
		sl.Spec.KeyRotation = c.schedule
		if c.asked != "" {
			sl.Annotations = map[string]string{v1alpha1.RotateAnnotation: c.asked}
		}
		if got := look(c.after, c.c1, c.c2); got != c.want {
			t.Errorf("%s: told %q, want %q", c.what, got, c.want)
		}
	}
}
