package bulletin

import (
	"errors"
	"fmt"
	"maps"
	"sync"

	"seaway.dev/seaway/fleet"
)

// Reason says in one word why a letter or a frame was not taken. Reasons are metrics' labels and stand in the status.
type Reason string

// The reasons. All but Stranger and Gap are somebody's fault: of the one who sent it or, for Flood by a chain that is
// too long, of the one who signed it.
const (
	Garbage  Reason = "Garbage"  // it cannot be read
	Forged   Reason = "Forged"   // the cluster that it speaks for has not signed it
	Replay   Reason = "Replay"   // its sender had sent something newer of that cluster before
	Flood    Reason = "Flood"    // more than anybody needs to say
	Stranger Reason = "Stranger" // of a cluster that is not known here: it may have just joined
)

// Refused is the error of a letter that is not taken.
type Refused struct {
	Reason Reason
	What   string
}

// Error implements error.
func (r *Refused) Error() string { return string(r.Reason) + ": " + r.What }

// ErrGap says that a delta builds on something that is not here yet.
var ErrGap = errors.New("what the change builds on is missing")

// What one cluster's letters may take in a store, besides the newest whole bulletin. Writers write a whole one much
// earlier: see NeedsWhole.
const (
	maxChain      = 512
	maxChainBytes = 4 << 20
)

// NeedsWhole tells a writer whether the next letter should be a whole bulletin: when the deltas since the last one
// are many, or larger than that itself.
func NeedsWhole(deltas, deltaBytes, wholeBytes int) bool {
	return deltas >= maxChain/4 || deltaBytes > max(2*wholeBytes, 64<<10)
}

// Store holds the newest letters of every cluster: a whole bulletin and the deltas on it. It believes nobody without
// a signature. It is safe for concurrent use.
type Store struct {
	signer func(cluster string) (fleet.Key, bool)

	mu    sync.Mutex
	boxes map[string]*box
}

type box struct {
	whole *Letter
	chain []*Letter // each builds on the one before
	bytes int       // of the chain
	head  Version
}

// NewStore makes an empty store. signer tells a cluster's public key; false if there is no such cluster.
func NewStore(signer func(cluster string) (fleet.Key, bool)) *Store {
	return &Store{signer: signer, boxes: map[string]*box{}}
}

// Put takes a letter in. News tells whether anybody else should hear of it. The error is [ErrGap], or a [*Refused].
func (s *Store) Put(l *Letter) (news bool, err error) {
	s.mu.Lock()
	b := s.boxes[l.Cluster]
	if b != nil && !l.Version().Newer(b.head) && !b.shortens(l) {
		s.mu.Unlock()
		return false, nil
	}
	s.mu.Unlock()
	// Signatures are checked without the lock: they are what costs.
	key, known := s.signer(l.Cluster)
	if !known {
		return false, &Refused{Stranger, fmt.Sprintf("letter of cluster %s, which is not known here", l.Cluster)}
	}
	if !l.SignedBy(key) {
		return false, &Refused{Forged, fmt.Sprintf("letter of cluster %s that it has not signed", l.Cluster)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b = s.boxes[l.Cluster]
	switch {
	case b != nil && b.shortens(l):
	case b != nil && !l.Version().Newer(b.head):
		return false, nil
	case l.Base == 0:
	case b == nil || b.head != Version{l.Epoch, l.Base}:
		return false, ErrGap
	case len(b.chain) >= maxChain || b.bytes+len(l.Body) > maxChainBytes:
		return false, &Refused{Flood, fmt.Sprintf("cluster %s says more than %d changes, or %d bytes of them, without saying the whole", l.Cluster, maxChain, maxChainBytes)}
	default:
		b.chain, b.bytes, b.head = append(b.chain, l), b.bytes+len(l.Body), l.Version()
		return true, nil
	}
	s.boxes[l.Cluster] = &box{whole: l, head: l.Version()}
	return true, nil
}

// shortens tells whether a letter is the whole of what is held as a whole and its changes.
func (b *box) shortens(l *Letter) bool {
	return l.Base == 0 && l.Version() == b.head && len(b.chain) > 0
}

// Have lists what is held, by cluster.
func (s *Store) Have() map[string]Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]Version, len(s.boxes))
	for name, b := range s.boxes {
		out[name] = b.head
	}
	return out
}

// Since lists the letters of a cluster that bring somebody who has a version up to date; none if it is.
func (s *Store) Since(cluster string, v Version) []*Letter {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.boxes[cluster]
	if b == nil || !b.head.Newer(v) {
		return nil
	}
	for i, l := range b.chain {
		if (Version{l.Epoch, l.Base}) == v {
			return append([]*Letter(nil), b.chain[i:]...)
		}
	}
	return append([]*Letter{b.whole}, b.chain...)
}

// Keep forgets all clusters that keep does not hold.
func (s *Store) Keep(keep func(cluster string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.boxes, func(name string, _ *box) bool { return !keep(name) })
}
