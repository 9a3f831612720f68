package story

import (
	"io"
	"strings"
	"testing"

	"seaway.dev/seaway/e2e/autoscale"
	"seaway.dev/seaway/e2e/stage"
)

// staged is a story that has the service in these clusters.
func staged(t *testing.T, c *clusters, names ...string) *play {
	t.Helper()
	c.calls = map[string]int{}
	s := stage.New(stage.Config{Lab: "lab", Seaway: "seaway", Runner: c, Out: io.Discard})
	p := &play{engine: &Engine{}, stage: s, ctx: t.Context(), dirty: true, sites: map[string]*autoscale.Site{}}
	for _, n := range names {
		p.sites[n] = &autoscale.Site{Cluster: n, Node: "10.0.0." + strings.TrimPrefix(n, "c")}
	}
	return p
}

// TestTheServiceIsStagedInSeveralClusters: where there is one, nobody needs to say which; where there are two, one must.
func TestTheServiceIsStagedInSeveralClusters(t *testing.T) {
	one, two := []string{"c1"}, []string{"c1", "c2"}
	for line, tc := range map[string]struct {
		staged []string
		want   string
	}{
		"autoscale load 7":                      {nil, "autoscale stage comes first"},
		"autoscale prometheus":                  {one, "http://10.0.0.1:9090"},
		"autoscale prometheus in c2":            {two, "http://10.0.0.2:9090"},
		"autoscale load 5":                      {two, "say in which cluster: the service is staged in c1, c2"},
		"autoscale load 5 in c3":                {two, "not staged in c3, but in c1, c2"},
		"autoscale load many in c1 c2":          {two, "many: want requests per second"},
		"autoscale room some in c1":             {two, "want a number of pods"},
		"autoscale jump 5 in c1 c2":             {two, "the load jumps in one cluster"},
		"autoscale jump 5 in c1 until c1 c2":    {two, "the load jumps in one cluster"},
		"autoscale jump 5 in c1 until c4":       {two, "not staged in c4"},
		"autoscale stage":                       {nil, "at least one cluster"},
		"autoscale stage c1 c2 after breakfast": {nil, "after breakfast"},
		"autoscale rest in c1":                  {one, "want stage, prometheus, load, room, teach or jump"},
	} {
		out, err := staged(t, &clusters{}, tc.staged...).do(t.Context(), strings.Fields(line))
		if err != nil {
			if !isMisuse(err) {
				t.Errorf("%s: %v is no fault of the story's text", line, err)
			}
			out = err.Error()
		}
		if !strings.Contains(out, tc.want) {
			t.Errorf("%s: %q, want %q", line, out, tc.want)
		}
	}
}

// TestTheAutoscalerIsRemovedWhereverTheServiceIsStaged also where it failed in one of the clusters.
func TestTheAutoscalerIsRemovedWhereverTheServiceIsStaged(t *testing.T) {
	c := &clusters{answers: answers{
		"lab status": says(oneCluster), "lab kubeconfig c1": says("/k/c1"), "lab kubeconfig c2": says("/k/c2"),
		"lab kubectl c1 get crd": fails("no route to host"), "lab kubectl c2 get crd": says("customresourcedefinition/autoscalers.seaway.dev\n"),
	}}
	staged(t, c, "c1", "c2").end()
	for _, line := range []string{"lab kubectl c1 get crd autoscalers", "lab kubectl c2 delete autoscalers.seaway.dev -A --all", "seaway uninstall autoscaler --kubeconfig /k/c2", "lab kubectl c1 delete namespace"} {
		if c.ran(line) != 1 {
			t.Errorf("%q was run %d times:\n%s", line, c.ran(line), strings.Join(c.log, "\n"))
		}
	}
}
