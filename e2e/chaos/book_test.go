package chaos

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBookGoesOn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "figures.json")
	open := func(commit string) *Book {
		t.Helper()
		b, err := OpenBook(file, commit)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := open("abc")
	for _, fault := range []string{"pair-cut", "hub-cut", "pair-cut"} {
		r := b.Of(fault)
		r.Fault = fault
		r.Runs = append(r.Runs, Run{Fault: fault, Noise: time.Millisecond})
		if err := b.Put(r); err != nil {
			t.Fatal(err)
		}
		b = open("abc")
	}
	if n, m := len(b.Of("pair-cut").Runs), len(b.Of("hub-cut").Runs); n != 2 || m != 1 || len(b.Reports) != 2 {
		t.Errorf("%d and %d runs in %d reports, want 2 and 1 in 2", n, m, len(b.Reports))
	}
	if _, err := OpenBook(file, "def"); err == nil || !strings.Contains(err.Error(), `"abc"`) {
		t.Errorf("runs of another commit: %v", err)
	}
	if list, _ := os.ReadDir(filepath.Dir(file)); len(list) != 1 {
		t.Errorf("%v is left", list)
	}
	if err := os.WriteFile(file, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBook(file, "abc"); err == nil {
		t.Error("half a file was read")
	}
}
