package corefile

import (
	"errors"
	"strings"
	"testing"
)

var (
	zones     = []string{"clusterset.local", "slice.local"}
	upstreams = []string{"10.96.7.9:5453"}
)

const kubeadm = `.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
    }
    loop
    reload
    loadbalance
}
`

func block(keys, bind string) string {
	return keys + " {\n    errors\n" + bind + "    forward . 10.96.7.9:5453 {\n        max_fails 0\n    }\n}\n"
}

func TestAdd(t *testing.T) {
	const usual = "clusterset.local:53 slice.local:53"
	for _, c := range []struct {
		name, corefile, want string
		reloads              bool
	}{
		{"kubeadm's", kubeadm, block(usual, ""), true},
		{"empty", "", block("clusterset.local slice.local", ""), false},
		{"without a port", ". {\n  whoami\n}\n", block("clusterset.local slice.local", ""), false},
		{"OpenShift's port", "example.org:5353 {\n  forward . 10.0.0.1\n}\n.:5353 {\n    reload\n}\n", block("clusterset.local:5353 slice.local:5353", ""), true},
		{"two ports", ".:53 .:54 {\n}\n", block("clusterset.local:53 slice.local:53 clusterset.local:54 slice.local:54", ""), false},
		{"schemes", "dns://.:53 tls://.:853 {\n}\n", block(usual, ""), false},
		{"a list of keys over lines", "example.org:53,\n.:53 {\n}\n", block(usual, ""), false},
		{"bound as node-local-dns is", "cluster.local:53 {\n    bind 169.254.20.10\n    reload\n}\n.:53 {\n    bind 169.254.20.10 10.96.0.10\n}\n",
			block(usual, "    bind 169.254.20.10 10.96.0.10\n"), true},
		{"two root blocks", ".:53 {\n bind 10.0.0.1\n}\n.:53 {\n bind 10.0.0.2\n}\n",
			block(usual, "    bind 10.0.0.1\n") + block(usual, "    bind 10.0.0.2\n"), false},
		{"snippets and imports", "(snip) {\n    reload\n}\nimport /etc/coredns/custom/*.server\n.:53 {\n    import snip\n    import /etc/coredns/custom/*.override\n}\n", block(usual, ""), true},
		{"an import at the end", ".:53 {\n}\nimport custom/*\n", block(usual, ""), false},
		{"comments, odd spaces and CRLF", "# first { clusterset.local\r\n\t.:53\t{ # open\r\n  errors\r\n\r\n  reload#now\r\n}\r\n# last", block(usual, ""), true},
		{"quotes", ".:53 {\n    log . \"{type} { \\\" }\"\n}\n", block(usual, ""), false},
		{"a byte order mark", "\ufeff.:53 {\n}\n", block(usual, ""), false},
		{"a name that only looks like it", ".:53 {\n rewrite name a.clusterset.localhost b\n}\n", block(usual, ""), false},
		{"an environment variable", "{$ZONE}:53 {\n}\n.:53 {\n}\n", block(usual, ""), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if Has(c.corefile) {
				t.Error("a block is there before it was added")
			}
			got, err := Add(c.corefile, zones, upstreams)
			if err != nil {
				t.Fatal(err)
			}
			head, tail, _ := strings.Cut(strings.TrimPrefix(got, c.corefile), begin)
			_, body, _ := strings.Cut(tail, "\n")
			if want := c.want + end + "\n"; body != want || !strings.HasPrefix(got, c.corefile) || strings.Trim(head, "\n") != "" {
				t.Errorf("got\n%s\nwant\n%s", body, want)
			}
			if Reloads(c.corefile) != c.reloads || Reloads(got) != c.reloads {
				t.Errorf("Reloads is %v before and %v after, want %v", Reloads(c.corefile), Reloads(got), c.reloads)
			}
			twice, err := Add(got, zones, upstreams)
			if err != nil || twice != got {
				t.Errorf("adding twice: %v\n%s", err, twice)
			}
			other, err := Add(got, zones, []string{"10.96.7.10:53", "[fd00::1]:53"})
			if err != nil || strings.Count(other, begin) != 1 || !strings.Contains(other, "forward . 10.96.7.10:53 [fd00::1]:53 {") {
				t.Errorf("other upstreams: %v\n%s", err, other)
			}
			for _, added := range []string{got, other} {
				if back, err := Remove(added); err != nil || back != c.corefile {
					t.Errorf("removed: %v\n%q\nwant\n%q", err, back, c.corefile)
				}
				if !Has(added) {
					t.Error("Has does not see the block")
				}
			}
		})
	}
}

func TestAddRefuses(t *testing.T) {
	for _, c := range []struct{ name, corefile, want string }{
		{"a block for the zone", kubeadm + "clusterset.local:53 {\n  forward . 1.2.3.4\n}\n", "zone clusterset.local (line 23: clusterset.local:53)"},
		{"in any case, with a scheme and a final dot", "dns://ClusterSet.Local.:53 {\n}\n", "zone clusterset.local (line 1"},
		{"a part of the zone", ".:53 svc.slice.local, {\n}\n", "zone slice.local (line 1"},
		{"the multicluster option", ".:53 {\n kubernetes cluster.local {\n  multicluster clusterset.local\n }\n}\n", "line 3"},
		{"a rewrite", ".:53 {\n rewrite name suffix .slice.local .svc.cluster.local\n}\n", "line 2: .slice.local"},
		{"a block that is open", ".:53 {\n errors\n", "begins in line 1 is not closed"},
		{"quotes that are open", ".:53 {\n log \"x\n}\n", "inside quotes"},
		{"a server without braces", "example.org\nwhoami\n", "without braces"},
		{"keys alone", "example.org", "without braces"},
		{"half our block", ".:53 {\n}\n# BEGIN seaway\n", "somebody cut the block"},
		{"the other half", ".:53 {\n}\n# END seaway\n", "without the line that begins"},
		{"our block twice", strings.Repeat("# BEGIN seaway\n# END seaway\n", 2), "second"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Add(c.corefile, zones, upstreams)
			if err == nil || !strings.Contains(err.Error(), c.want) || got != "" {
				t.Errorf("got %v %q, want an error with %q and nothing half-made", err, got, c.want)
			}
		})
	}
	var served *ServedError
	if _, err := Add("slice.local {\n}\n", zones, upstreams); !errors.As(err, &served) || served.Zone != "slice.local" || served.Line != 1 {
		t.Errorf("got %v, want a ServedError", err)
	}
	for _, bad := range [][2][]string{
		{nil, upstreams}, {zones, nil}, {zones, make([]string, 16)}, {{"a b"}, upstreams}, {{"{"}, upstreams}, {{"Slice.local"}, upstreams},
		{{"slice.local."}, upstreams}, {zones, {"10.0.0.1"}}, {zones, {"dns.example:53"}}, {zones, {"10.0.0.1:0"}}, {zones, {"10.0.0.1:53 {"}},
	} {
		if got, err := Add(kubeadm, bad[0], bad[1]); err == nil || got != "" {
			t.Errorf("%v: %v, want an error", bad, err)
		}
	}
}

// What people write around our block stays.
func TestRemoveKeepsWhatCameLater(t *testing.T) {
	got, err := Add(kubeadm, zones, upstreams)
	if err != nil {
		t.Fatal(err)
	}
	later := "example.org:53 {\n    forward . 10.0.0.1\n}\n"
	if back, err := Remove(got + later); err != nil || back != kubeadm+later {
		t.Errorf("%v\n%s", err, back)
	}
	// An editor may have put carriage returns or spaces behind the lines.
	if back, err := Remove(strings.ReplaceAll(got, "\n", "\r\n")); err != nil || back != strings.ReplaceAll(kubeadm, "\n", "\r\n") {
		t.Errorf("%v\n%q", err, back)
	}
}

// Whatever a Corefile says: what Add accepts, Remove gives back to the last byte, and adding twice is adding once.
func FuzzAddRemove(f *testing.F) {
	f.Add(kubeadm)
	f.Add(".:53 {\n}\n# last")
	f.Add("a#b")
	f.Add(".{\n\"}\n")
	f.Add("\ufeff# BEGIN seaway (with the newline before)\r\n# END seaway")
	f.Fuzz(func(t *testing.T, corefile string) {
		Reloads(corefile)
		before, err := Remove(corefile)
		if err != nil {
			if _, err := Add(corefile, zones, upstreams); err == nil {
				t.Fatal("Add takes what Remove does not understand")
			}
			return
		}
		if !strings.Contains(corefile, begin) && before != corefile {
			t.Fatal("removed something that was not ours")
		}
		got, err := Add(corefile, zones, upstreams)
		if err != nil {
			return
		}
		if back, err := Remove(got); err != nil || back != before {
			t.Fatalf("%v\nbefore %q\nback   %q", err, before, back)
		}
		if twice, err := Add(got, zones, upstreams); err != nil || twice != got {
			t.Fatalf("%v\nonce  %q\ntwice %q", err, got, twice)
		}
	})
}
