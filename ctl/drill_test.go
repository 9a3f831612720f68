package ctl

import (
	"bytes"
	"strings"
	"testing"
)

// TestDrillsAreRefusedBeforeAnythingIsTouched: what is said wrongly needs no cluster to be told so.
func TestDrillsAreRefusedBeforeAnythingIsTouched(t *testing.T) {
	for line, want := range map[string]string{
		"drill run nonsense web":                         "delete-pod",
		"drill run blackhole-peer web":                   "--peer CLUSTER/NODE",
		"drill run blackhole-peer web --peer c1":         "--peer CLUSTER/NODE",
		"drill run nothing web --hold 1h":                "up to 5m0s",
		"drill run nothing web --hold 0s":                "up to 5m0s",
		"drill run nothing web --max-errors 2":           "0 to 1",
		"drill run nothing":                              "arg(s)",
		"drill run nothing web --kubeconfig /nowhere/no": "nowhere",
	} {
		var out, errs bytes.Buffer
		code := Run(t.Context(), Config{Name: "seaway", Version: "test", Out: &out, Err: &errs}, strings.Fields(line))
		if code == ExitOK || !strings.Contains(errs.String(), want) {
			t.Errorf("%s: exit code %d, %q; want %q", line, code, errs.String(), want)
		}
	}
	var out bytes.Buffer
	if code := Run(t.Context(), Config{Name: "seaway", Version: "test", Out: &out, Err: &out}, []string{"drill", "list"}); code != ExitOK || !strings.Contains(out.String(), "blackhole-peer") {
		t.Errorf("drill list: %d\n%s", code, out.String())
	}
}
