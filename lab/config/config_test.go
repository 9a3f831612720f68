package config

import (
	"strings"
	"testing"
)

func TestDefaultLayout(t *testing.T) {
	c := Default(3, 2)
	if err := c.Complete(); err != nil {
		t.Fatal(err)
	}
	if len(c.Clusters) != 4 || c.Clusters[0].Number != HubNumber || !c.Clusters[3].Private || c.Clusters[2].Private {
		t.Errorf("%+v", c.Clusters)
	}
	for _, cl := range c.Clusters {
		if cl.PodCIDR != DefaultPodCIDR || cl.ServiceCIDR != DefaultServiceCIDR {
			t.Errorf("%s has networks %s and %s", cl.Name, cl.PodCIDR, cl.ServiceCIDR)
		}
	}
}

func TestUnknownKeyIsNamed(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"clusters:\n- name: c1\n  podCIDRs: 10.0.0.0/16\n", `podCIDRs`},
		{"clusers: []\n", `clusers`},
		{"clusters:\n- name: c1\n  name: c2\n", `name`},
		{"clusters: 5\n", `clusters`},
	} {
		_, err := Parse([]byte(c.yaml))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v does not name %s", c.yaml, err, c.want)
		}
	}
}

func TestFaultsAreAllNamed(t *testing.T) {
	c, err := Parse([]byte(`
mtu: 100
proxyMode: ipvs
clusters:
- {name: C1}
- {name: all}
- {name: c2, nodes: 99}
- {name: c3, podCIDR: 10.244.1.0/16}
- {name: c4, podCIDR: 172.30.0.0/16}
- {name: c5, podCIDR: 10.96.0.0/12}
- {name: c6, number: 7}
- {name: c7, number: 7}
- {name: c7}
- {name: c8, serviceCIDR: "fd00::/112"}
`))
	if err != nil {
		t.Fatal(err)
	}
	err = c.Complete()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"mtu 100", `proxyMode "ipvs"`, `"C1": the name must be`, `"all": the name is reserved`, "nodes: 99", "did you mean 10.244.0.0/16",
		"overlaps 172.30.0.0/16", "podCIDR 10.96.0.0/12 and serviceCIDR 10.96.0.0/16 overlap", "number 7 is also", `"c7": the name is used twice`, `serviceCIDR "fd00::/112"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("not said: %s", want)
		}
	}
}

func TestKeepAndPrivate(t *testing.T) {
	c := Default(3, 2)
	if err := c.Complete(); err != nil {
		t.Fatal(err)
	}
	if err := c.SetPrivate([]string{"c1", "c2"}); err != nil || !c.Clusters[1].Private || c.Clusters[3].Private {
		t.Errorf("%v %+v", err, c.Clusters)
	}
	if err := c.SetPrivate([]string{"c8"}); err == nil || !strings.Contains(err.Error(), "c8") {
		t.Error(err)
	}
	if err := c.Keep([]string{"hub", "c9"}); err == nil || !strings.Contains(err.Error(), "hub, c1, c2, c3") {
		t.Error(err)
	}
	if err := c.Keep([]string{"hub", "c2"}); err != nil || len(c.Clusters) != 2 || c.Clusters[1].Number != 2 {
		t.Errorf("%v %+v", err, c.Clusters)
	}
}
