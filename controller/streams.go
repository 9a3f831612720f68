package controller

import (
	"reflect"
	"sync"
	"time"

	"seaway.dev/seaway/controller/report"
	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/delta"
	"seaway.dev/seaway/fleet"
)

// streams tells each node its intent, each time it differs from what that node was told last.
type streams struct {
	l *leader

	mu     sync.Mutex
	nodes  map[string]*nodeStream
	change chan struct{} // closed at each new roster
	rev    uint64
	memo   delta.Memo
}

// nodeStream is what is known of one node's agent. It outlives the connection.
type nodeStream struct {
	open   int           // connections
	told   *fleet.Intent // the last one
	heard  time.Time     // last report
	report *fleet.Report // whole, with what does not matter to the roster
}

func newStreams(l *leader) *streams {
	return &streams{l: l, nodes: map[string]*nodeStream{}, change: make(chan struct{})}
}

func (s *streams) node(name string) *nodeStream {
	n := s.nodes[name]
	if n == nil {
		n = &nodeStream{}
		s.nodes[name] = n
	}
	return n
}

// wakeAll has every stream look at the newest roster.
func (s *streams) wakeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.change)
	s.change = make(chan struct{})
}

// next returns what to tell a node that was told last on this connection: its intent, and what changed since as well
// if that can be told; nil if nothing did. The channel is closed when it is worth asking again. Unless now is set,
// nothing is looked for.
func (s *streams) next(node string, last *fleet.Intent, now bool) (*fleet.Intent, *fleet.IntentDelta, <-chan struct{}) {
	s.mu.Lock()
	change := s.change
	told := s.node(node).told
	s.mu.Unlock()
	r := s.l.roster.Load()
	if r == nil || !now {
		return nil, nil, change
	}
	in := r.Intent(node)
	in.Epoch = s.l.epoch
	d, changed := s.memo.Intent(last, in)
	if !changed {
		return nil, nil, change
	}
	// A node that comes back with nothing new to tell keeps its revision, and so its report of having applied it.
	if last != told && told != nil {
		if _, changed := s.memo.Intent(told, in); !changed {
			return told, nil, change
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rev++
	in.Rev = s.rev
	if d != nil {
		d.Rev = in.Rev
	}
	s.node(node).told = in
	return in, d, change
}

// opened and closed count a node's connections.
func (s *streams) opened(node string) {
	s.mu.Lock()
	s.node(node).open++
	s.mu.Unlock()
	s.l.status.touch()
}

func (s *streams) closed(node string) {
	s.mu.Lock()
	s.node(node).open--
	s.mu.Unlock()
	s.l.status.touch()
}

// connected counts the nodes whose stream is open.
func (s *streams) connected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, st := range s.nodes {
		if st.open > 0 {
			n++
		}
	}
	return n
}

// report takes in what a node says of itself.
func (s *streams) report(rep *fleet.Report) {
	s.mu.Lock()
	n := s.node(rep.Node)
	n.heard, n.report = time.Now(), rep
	s.mu.Unlock()
	lean := report.Lean(rep)
	s.l.board.edit(func(f *roster.Facts) bool {
		if _, ours := f.Nodes[rep.Node]; !ours {
			return false
		}
		old, heard := f.Reports[rep.Node], f.Heard[rep.Node]
		if heard && reflect.DeepEqual(old, lean) {
			return false
		}
		f.Reports[rep.Node], f.Heard[rep.Node] = lean, true
		return true
	})
	s.l.status.touch()
}

// snapshot returns what is known of each node's agent, for people.
func (s *streams) snapshot() map[string]nodeStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]nodeStream, len(s.nodes))
	for name, n := range s.nodes {
		out[name] = *n
	}
	return out
}

// forget drops nodes that are no more.
func (s *streams) forget(exists map[string]roster.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, n := range s.nodes {
		if _, ok := exists[name]; !ok && n.open == 0 {
			delete(s.nodes, name)
		}
	}
}
