package figures

import (
	"testing"
	"time"
)

func TestNearestRank(t *testing.T) {
	var list []time.Duration
	for i := 100; i > 0; i-- {
		list = append(list, time.Duration(i)*time.Millisecond)
	}
	for _, c := range []struct {
		n    int
		want string
	}{{100, "50/99/100 ms"}, {1, "100/100/100 ms"}, {2, "99/100/100 ms"}, {0, "0/0/0 ms"}} {
		if got := Of(list[:c.n]).String(); got != c.want {
			t.Errorf("of %d: %s, want %s", c.n, got, c.want)
		}
	}
	if list[0] != 100*time.Millisecond {
		t.Error("the caller's list was sorted")
	}
}
