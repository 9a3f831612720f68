package decide

import "testing"

func TestHold(t *testing.T) {
	var k Keep
	for i, c := range []struct {
		now        int64
		want, hold int
	}{{0, 5, 5}, {10, 9, 9}, {20, 4, 9}, {60, 6, 9}, {71, 3, 6}, {125, 3, 3}, {126, 12, 12}} {
		if got := k.Hold(c.now, c.want, 60); got != c.hold {
			t.Errorf("%d: wants %d, holds %d, not %d", i, c.want, got, c.hold)
		}
	}
	if len(k.Wants) > 3 {
		t.Errorf("keeps %d", len(k.Wants))
	}
}
