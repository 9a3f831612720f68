package postgres

import (
	"strings"
	"testing"
	"time"
)

func TestWhatIsLost(t *testing.T) {
	log, err := readLog(strings.NewReader("ack a-1 1000000\nerr a-2 2000000 server closed\nack a-3 3000000\nack a-4 40"))
	if err != nil || len(log) != 3 {
		t.Fatalf("%v %v", log, err)
	}
	if got := lost(log, map[string]bool{"a-1": true, "a-2": true}); len(got) != 1 || got[0] != "a-3" {
		t.Errorf("lost %v: a-3 was acknowledged and is missing, a-2 was promised to nobody", got)
	}
	if got := lost(log, map[string]bool{"a-1": true, "a-3": true}); got != nil {
		t.Errorf("lost %v", got)
	}
	if at, ok := firstAck(log, time.UnixMicro(1000000)); !ok || at != time.UnixMicro(3000000) {
		t.Errorf("first acknowledgement %v %v", at, ok)
	}
	if _, ok := firstAck(log, time.UnixMicro(3000000)); ok {
		t.Error("there is no acknowledgement after the last")
	}
	if _, err := readLog(strings.NewReader("what is this\n")); err == nil {
		t.Error("nonsense was read")
	}
}

func TestTheMostAdvancedIsChosen(t *testing.T) {
	place := func(s string) lsn {
		l, err := parseLSN(s)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	has := map[string]lsn{"c1": place("0/FFFFFFF"), "c2": place("1/10"), "c3": place("1/F")}
	if got := choose(has, false); got != "c2" {
		t.Errorf("chose %s", got)
	}
	if got := choose(has, true); got != "c1" {
		t.Errorf("the laggard is not %s", got)
	}
	for _, bad := range []string{"", "0", "x/1", "1/"} {
		if _, err := parseLSN(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
