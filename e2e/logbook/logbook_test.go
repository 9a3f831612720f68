package logbook

import (
	"os"
	"path/filepath"
	"testing"
)

func TestOnlyWholeLinesAndEachOnce(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	f, err := New("test")
	if err != nil {
		t.Fatal(err)
	}
	add := func(text string) {
		file, err := os.OpenFile(filepath.Join(f.Path, "a.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct{ write, want string }{
		{"one\ntw", "one\n"}, {"", ""}, {"o\nthree\n", "two\nthree\n"}, {"fo", ""}, {"ur\n", "four\n"},
	} {
		add(step.write)
		got, err := f.More()
		if err != nil || got["a"] != step.want {
			t.Errorf("after %q: %q %v, want %q", step.write, got["a"], err, step.want)
		}
	}
	if err := f.Empty(); err != nil {
		t.Fatal(err)
	}
	add("five\n")
	if got, err := f.More(); err != nil || got["a"] != "five\n" {
		t.Errorf("after it was emptied: %q %v", got["a"], err)
	}
	if err := f.Remove(); err != nil {
		t.Fatal(err)
	}
}
