package config

import (
	"reflect"
	"testing"

	"sigs.k8s.io/yaml"
)

// FuzzParse: any text is refused with a reason, or is a configuration that stays the same when written and read again,
// and that completing twice changes as much as once.
func FuzzParse(f *testing.F) {
	f.Add("clusters:\n- name: hub\n  number: 100\n- {name: c1, nodes: 2, private: true, podCIDR: 10.1.0.0/16}\nmtu: 1400\nipv6: false\n")
	f.Add("clusters: [{name: a}, {name: b, number: 1}]\nproxyMode: iptables\ndns: false\nmetrics: true\n")
	f.Add("clusters: 3")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse([]byte(text))
		if err != nil {
			if err.Error() == "" {
				t.Error("refused without a reason")
			}
			return
		}
		if c.Complete() != nil {
			return
		}
		b, err := yaml.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(b)
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("%s\nread again: %+v, %v", b, again, err)
		}
		if err := again.Complete(); err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("completed again: %+v, %v; was %+v", again, err, c)
		}
	})
}
