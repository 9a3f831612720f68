package wg

import (
	"sync"

	"seaway.dev/seaway/fleet"
)

// asked keeps handshakes that were asked for too early: the switch is told of a slice's peers before its device is, and
// at a restart asks at once for those with whom there was a session. Lost, they cost WireGuard's own five seconds.
type asked struct {
	mu sync.Mutex
	by map[string]map[fleet.Key]bool // device's name, peer: whether to renew
}

func (a *asked) keep(name string, peer fleet.Key, renew bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.by == nil {
		a.by = map[string]map[fleet.Key]bool{}
	}
	if a.by[name] == nil {
		a.by[name] = map[fleet.Key]bool{}
	}
	a.by[name][peer] = a.by[name][peer] || renew
}

// take returns what was asked for and forgets it.
func (a *asked) take(name string) map[fleet.Key]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.by[name]
	delete(a.by, name)
	return out
}
