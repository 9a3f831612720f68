package datapath_test

import (
	"fmt"
	"testing"
	"time"

	"seaway.dev/seaway/datapath"
	"seaway.dev/seaway/datapath/podtest"
	"seaway.dev/seaway/slice/plan"
)

// TestCost prints what a check costs while nothing changes, and what one more pod costs, on a node with many pods.
func TestCost(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 60 pods")
	}
	r := newRig(t)
	var pods []*podtest.Pod
	for i := range 60 {
		pods = append(pods, r.pod(fmt.Sprintf("p%d", i)))
	}
	started := time.Now()
	r.apply(r.slice("pay", dual, pods...))
	t.Logf("60 pods attached: %v", time.Since(started))
	s := r.slice("pay", dual, pods...)
	started = time.Now()
	const n = 10
	for range n {
		if res := r.apply(s); res.Ops != 0 {
			t.Fatalf("%d changes", res.Ops)
		}
	}
	t.Logf("check of 60 pods: %v", time.Since(started)/n)
	pods = append(pods, r.pod("new"))
	started = time.Now()
	res, err := r.kernel.Apply(t.Context(), []plan.Slice{r.slice("pay", dual, pods...)}, datapath.Quick)
	if err != nil || !find(t, res, "new").Attached {
		t.Fatalf("%+v, %v", res, err)
	}
	t.Logf("one more pod: %v, %d changes", time.Since(started), res.Ops)
}
