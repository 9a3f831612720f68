package relay

import (
	"net/netip"
	"reflect"
	"testing"

	"seaway.dev/seaway/slice/plan"
)

var (
	d1, d2 = netip.MustParseAddrPort("10.0.0.1:51871"), netip.MustParseAddrPort("[2001:db8::1]:51871")
	r1, r2 = netip.MustParseAddrPort("10.9.0.1:51871"), netip.MustParseAddrPort("10.9.0.2:51871")
	roamed = netip.MustParseAddrPort("198.51.100.7:4242")
	none   netip.AddrPort
)

func ways(eps ...netip.AddrPort) (out []plan.Path) {
	for _, e := range eps {
		w := plan.Path{Endpoint: e}
		if e == r1 || e == r2 {
			w.Relay = "c2/g"
		}
		out = append(out, w)
	}
	return out
}

func list(eps ...netip.AddrPort) []netip.AddrPort { return eps }

func TestInitiation(t *testing.T) {
	const now = 1000 * second
	for name, c := range map[string]struct {
		p     paths
		using netip.AddrPort
		want  []attempt
	}{
		"first: direct ones, relays a little later": {paths{ways: ways(d1, d2, r1)}, none, []attempt{{to: list(d1, d2)}, {to: list(r1), after: relayHandicap}}},
		"first, only relays":                        {paths{ways: ways(r1, r2)}, none, []attempt{{to: list(r1, r2)}}},
		"no ways, never heard":                      {paths{}, none, nil},
		"no ways, dialled in":                       {paths{received: now - second}, roamed, []attempt{{to: list(roamed)}}},
		"in use":                                    {paths{ways: ways(d1, r1), received: now - second}, d1, []attempt{{to: list(d1)}}},
		"in use by relay: direct ones too":          {paths{ways: ways(d1, r1, r2), received: now - second}, r1, []attempt{{to: list(d1)}, {to: list(r1), after: relayHandicap}}},
		"in use but silent":                         {paths{ways: ways(d1, r1), received: now - silence}, d1, []attempt{{to: list(d1)}, {to: list(r1), after: relayHandicap}}},
		"unanswered: all at once":                   {paths{ways: ways(d1, r1), received: now - second, unanswered: 1}, d1, []attempt{{to: list(d1, r1)}}},
		"unanswered often: one at a time":           {paths{ways: ways(d1, r1), unanswered: 3}, none, []attempt{{to: list(r1)}}},
		"and the next":                              {paths{ways: ways(d1, r1), unanswered: 5}, none, []attempt{{to: list(d1)}}},
		"in between all":                            {paths{ways: ways(d1, r1), unanswered: 4}, none, []attempt{{to: list(d1, r1)}}},
		"roamed, unanswered":                        {paths{ways: ways(d1), unanswered: 1}, roamed, []attempt{{to: list(d1, roamed)}}},
		"upgrade: direct ones only":                 {paths{ways: ways(d1, r1), direct: now + 1, received: now}, r1, []attempt{{to: list(d1)}}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.p.initiation(c.using, now); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %v\nwant %v", got, c.want)
			}
		})
	}
}

// TestUpgradeBackOff: attempts come after 5, 10, 20 … s and then every 5 minutes, and start anew after a time on a
// direct path.
func TestUpgradeBackOff(t *testing.T) {
	p := paths{ways: ways(d1, r1)}
	var at []int64
	for now := second; now < 1500*second; now += second {
		if p.tick(r1, true, now) {
			at = append(at, now/second)
		}
	}
	want := []int64{6, 16, 36, 76, 156, 316, 616, 916, 1216}
	if !reflect.DeepEqual(at, want) {
		t.Errorf("attempts at %v s, want %v", at, want)
	}
	p.tick(d1, false, 1500*second)
	if p.tick(r1, true, 1501*second) || !p.tick(r1, true, 1506*second) {
		t.Error("after a direct path the back-off did not start anew")
	}
	q := paths{ways: ways(r1)}
	if q.tick(r1, true, 1e6*second) || q.tick(r1, true, 2e6*second) {
		t.Error("an attempt without any direct way")
	}
}

func TestChangeOfWays(t *testing.T) {
	for name, c := range map[string]struct {
		p     paths
		ways  []plan.Path
		using netip.AddrPort
		lost  bool
	}{
		"same":                      {paths{ways: ways(d1, r1)}, ways(d1, r1), d1, false},
		"another is gone":           {paths{ways: ways(d1, r1)}, ways(d1), d1, false},
		"the one in use is gone":    {paths{ways: ways(d1, r1)}, ways(r1), d1, true},
		"it was the last":           {paths{ways: ways(d1)}, nil, d1, false},
		"it had dialled in":         {paths{ways: ways(d1)}, ways(r1), roamed, false},
		"tried in vain so far":      {paths{ways: ways(d1), unanswered: 2}, ways(r1), none, true},
		"first, and nothing tried":  {paths{}, ways(r1), none, false},
		"first ways after attempts": {paths{unanswered: 1}, ways(r1), none, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.p.change(c.ways, c.using); got != c.lost {
				t.Errorf("lost: %v, want %v", got, c.lost)
			}
		})
	}
}
