package etcd

import (
	"strings"
	"testing"
	"time"
)

func history(t *testing.T, text string) []operation {
	t.Helper()
	h, err := readLog(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHistories(t *testing.T) {
	for name, c := range map[string]struct {
		log  string
		want verdict
	}{
		"one after the other":           {"put k a 1 2 ok\nget k a 3 4 ok\n", linearizable},
		"at the same time, either":      {"put k a 1 2 ok\nput k b 3 9 ok\nget k a 4 5 ok\nget k b 6 7 ok\n", linearizable},
		"a stale read":                  {"put k a 1 2 ok\nput k b 3 4 ok\nget k a 5 6 ok\n", notLinearizable},
		"back in time":                  {"put k a 1 2 ok\nput k b 3 9 ok\nget k b 4 5 ok\nget k a 6 7 ok\n", notLinearizable},
		"a lost write":                  {"put k a 1 2 ok\nget k - 3 4 ok\n", notLinearizable},
		"an unknown write that came":    {"put k a 1 2 ok\nput k b 3 4 unknown\nget k a 5 6 ok\nget k b 7 8 ok\n", linearizable},
		"an unknown write that did not": {"put k a 1 2 ok\nput k b 3 4 unknown\nget k a 5 6 ok\n", linearizable},
		"an unknown write undone":       {"put k a 1 2 ok\nput k b 3 4 unknown\nget k b 5 6 ok\nget k a 7 8 ok\n", notLinearizable},
		"keys are their own":            {"put k a 1 2 ok\nput l b 3 4 ok\nget k a 5 6 ok\nget l b 5 6 ok\n", linearizable},
		"a read without an answer":      {"put k a 1 2 ok\nget k - 3 4 unknown\n", linearizable},
	} {
		if got := check(history(t, c.log), time.Minute); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestWriteGap(t *testing.T) {
	h := history(t, "put k a 1 1000 ok\nput k b 1 5000 ok\nput k c 1 6000 unknown\nget k a 1 6500 ok\nput k d 1 8000 ok\n")
	at := func(us int64) time.Time { return time.UnixMicro(us) }
	if got := writeGap(h, at(0), at(9000)); got != 4*time.Millisecond {
		t.Errorf("gap %s", got)
	}
	if got := writeGap(h, at(5500), at(9000)); got != 2500*time.Microsecond {
		t.Errorf("gap %s: it begins where we begin to look", got)
	}
	if got := writeGap(h, at(8500), at(60000)); got != 51500*time.Microsecond {
		t.Errorf("gap %s: silence to the end counts", got)
	}
}

func TestNonsenseIsNoHistory(t *testing.T) {
	for _, bad := range []string{"put\n", "del k a 1 2 ok\n", "put k a 2 1 ok\n", "put k a x 1 ok\n", "put k a 1 2 maybe\n"} {
		if _, err := readLog(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	if h := history(t, "put k a 1 2 ok\nput k b 3"); len(h) != 1 {
		t.Errorf("half a line: %v", h)
	}
}
