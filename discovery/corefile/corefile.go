// Package corefile makes a cluster's CoreDNS forward some zones to us, and makes it forget them again to the last byte.
// It edits the text of a Corefile and touches nothing else:
//
//	# BEGIN seaway: `seaway join` wrote this and `seaway leave` takes it out; edits here are lost
//	clusterset.local:53 slice.local:53 {
//	    errors
//	    forward . 10.96.7.9:5453 {
//	        max_fails 0
//	    }
//	}
//	# END seaway
//
// The block listens where the Corefile's own root zone listens (ports and bind), because CoreDNS chooses a block by
// zone among those on one port. A Corefile that says anything about those zones already is somebody else's decision
// and is refused, with the line. There is no cache in the block: answers come from the node itself, and what went must
// not be remembered.
package corefile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The lines around our block. When the Corefile did not end with a newline, the first one says so, and the newline
// that had to be put before it goes with the block.
const (
	begin       = "# BEGIN seaway"
	end         = "# END seaway"
	beginText   = begin + ": `seaway join` wrote this and `seaway leave` takes it out; edits here are lost"
	beginJoined = begin + " (with the newline before): `seaway join` wrote this and `seaway leave` takes it out; edits here are lost"
)

// maxUpstreams is the most that CoreDNS's forward plugin takes.
const maxUpstreams = 15

// ServedError says that a Corefile already has something to do with a zone.
type ServedError struct {
	Zone  string
	Line  int
	Token string // as it stands there
}

func (e *ServedError) Error() string {
	return fmt.Sprintf("the Corefile already mentions zone %s (line %d: %s): another implementation of multi-cluster services may use it; remove that first, or leave CoreDNS to it and join without DNS", e.Zone, e.Line, e.Token)
}

// Add returns the Corefile with a block that forwards zones to upstreams (address and port, at most 15; CoreDNS tries
// them at random). A block of ours that is there already is replaced, so that adding twice is adding once.
func Add(corefile string, zones, upstreams []string) (string, error) {
	if err := check(zones, upstreams); err != nil {
		return "", err
	}
	corefile, err := Remove(corefile)
	if err != nil {
		return "", err
	}
	tokens, closed := scan(corefile)
	if !closed {
		return "", fmt.Errorf("the Corefile ends inside quotes: correct it first (CoreDNS's own log says whether it reads it)")
	}
	servers, err := parse(tokens)
	if err != nil {
		return "", err
	}
	if err := served(tokens, zones); err != nil {
		return "", err
	}
	block := render(zones, upstreams, listeners(servers))
	out := corefile
	if corefile == "" || strings.HasSuffix(corefile, "\n") {
		out += beginText + "\n" + block + end + "\n"
	} else {
		out += "\n" + beginJoined + "\n" + block + end + "\n"
	}
	// What was there must read as before, and the block as what it is, whatever tricks the text plays.
	added, _ := scan(block)
	if all, _ := scan(out); !slices.EqualFunc(all, slices.Concat(tokens, added), func(a, b token) bool { return a.text == b.text }) {
		return "", fmt.Errorf("the Corefile's last line would swallow what follows it: end it with a newline and no comment")
	}
	return out, nil
}

// Remove returns the Corefile without our block, as it was before Add. A Corefile without one is returned as it is.
func Remove(corefile string) (string, error) {
	from, to, line := -1, -1, 0
	for at := 0; at < len(corefile); {
		next := len(corefile)
		if i := strings.IndexByte(corefile[at:], '\n'); i >= 0 {
			next = at + i + 1
		}
		line++
		text := strings.TrimSpace(corefile[at:next])
		switch {
		case marks(text, begin):
			if from >= 0 {
				return "", fmt.Errorf("the Corefile has a second %q in line %d: somebody copied the block; remove one by hand", begin, line)
			}
			from = at
			if strings.HasPrefix(text, begin+" (with the newline before)") && at > 0 && corefile[at-1] == '\n' {
				from--
			}
		case marks(text, end):
			if from < 0 || to >= 0 {
				return "", fmt.Errorf("the Corefile has %q in line %d without the line that begins the block: remove what is left of it by hand", end, line)
			}
			to = next
		}
		at = next
	}
	switch {
	case from < 0:
		return corefile, nil
	case to < 0:
		return "", fmt.Errorf("the Corefile has %q and no %q: somebody cut the block; remove what is left of it by hand", begin, end)
	}
	return corefile[:from] + corefile[to:], nil
}

// Has tells whether a Corefile has our block.
func Has(corefile string) bool {
	out, err := Remove(corefile)
	return err == nil && out != corefile
}

// Reloads tells whether CoreDNS will see a change by itself (its plugin reload, every 30 s by default). If not, its
// pods must be restarted.
func Reloads(corefile string) bool {
	tokens, _ := scan(corefile)
	servers, err := parse(tokens)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(servers, func(s server) bool { return len(s.directives["reload"]) > 0 })
}

func marks(line, marker string) bool {
	rest, ok := strings.CutPrefix(line, marker)
	return ok && (rest == "" || rest[0] == ':' || rest[0] == ' ')
}

// check refuses what would make a Corefile that CoreDNS does not read.
func check(zones, upstreams []string) error {
	if len(zones) == 0 || len(upstreams) == 0 || len(upstreams) > maxUpstreams {
		return fmt.Errorf("forward %d zones to %d upstreams: CoreDNS takes one zone or more and 1 to %d upstreams", len(zones), len(upstreams), maxUpstreams)
	}
	for _, z := range zones {
		if z == "" || strings.Trim(z, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" || strings.HasPrefix(z, ".") || strings.HasSuffix(z, ".") {
			return fmt.Errorf("forward zone %q: want a domain name in lower case without the final dot", z)
		}
	}
	for _, u := range upstreams {
		if a, err := netip.ParseAddrPort(u); err != nil || a.Port() == 0 || a.Addr().Zone() != "" {
			return fmt.Errorf("forward to %q: want an address and a port", u)
		}
	}
	return nil
}

// served finds the first word that is one of the zones or a name in one.
func served(tokens []token, zones []string) error {
	for _, t := range tokens {
		name, _ := zoneOf(t.text)
		name = strings.Trim(name, ".")
		for _, z := range zones {
			if name == z || strings.HasSuffix(name, "."+z) {
				return &ServedError{Zone: z, Line: t.line, Token: t.text}
			}
		}
	}
	return nil
}

// zoneOf splits a key of a server block: [scheme://]zone[:port][,]. The zone is in lower case.
func zoneOf(key string) (zone, port string) {
	key = strings.TrimSuffix(key, ",")
	if _, rest, ok := strings.Cut(key, "://"); ok {
		key = rest
	}
	if i := strings.LastIndexByte(key, ':'); i >= 0 && strings.Trim(key[i+1:], "0123456789") == "" {
		key, port = key[:i], key[i:]
	}
	return strings.ToLower(key), port
}

// listener is where a block listens.
type listener struct {
	ports string // with their colons, separated by spaces; "" is CoreDNS's default
	bind  string // the arguments of bind, "" for none
}

// listeners returns where the Corefile's root zone is served in plain DNS: one block of ours goes beside each.
func listeners(servers []server) []listener {
	var out []listener
	for _, s := range servers {
		var ports []string
		root := false
		for _, k := range s.keys {
			scheme, _, ok := strings.Cut(k, "://")
			zone, port := zoneOf(k)
			if ok && scheme != "dns" || zone != "." && zone != "" {
				continue
			}
			root = true
			if !slices.Contains(ports, port) {
				ports = append(ports, port)
			}
		}
		if !root {
			continue
		}
		l := listener{ports: strings.Join(ports, " ")}
		for _, args := range s.directives["bind"] {
			l.bind = strings.TrimSpace(l.bind + " " + strings.Join(args, " "))
		}
		if !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	if len(out) == 0 {
		out = []listener{{}}
	}
	return out
}

// render writes the blocks.
func render(zones, upstreams []string, at []listener) string {
	var b strings.Builder
	for _, l := range at {
		var keys []string
		for _, port := range strings.Split(l.ports, " ") {
			for _, z := range zones {
				keys = append(keys, z+port)
			}
		}
		fmt.Fprintf(&b, "%s {\n    errors\n", strings.Join(keys, " "))
		if l.bind != "" {
			fmt.Fprintf(&b, "    bind %s\n", l.bind)
		}
		// Without max_fails 0 two lost packets would make CoreDNS hold off for half a second.
		fmt.Fprintf(&b, "    forward . %s {\n        max_fails 0\n    }\n}\n", strings.Join(upstreams, " "))
	}
	return b.String()
}
