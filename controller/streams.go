package controller

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/fleet"
)

// streams tells each node its intent, each time it differs from what that node was told last.
type streams struct {
	l *leader

	mu     sync.Mutex
	nodes  map[string]*nodeStream
	change chan struct{} // closed at each new roster
	rev    uint64
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

// next returns the node's intent if it differs from the given one, which was told last on this connection; else nil.
// The channel is closed when it is worth asking again.
func (s *streams) next(node string, last *fleet.Intent) (*fleet.Intent, <-chan struct{}) {
	s.mu.Lock()
	change := s.change
	s.mu.Unlock()
	r := s.l.roster.Load()
	if r == nil {
		return nil, change
	}
	in := r.Intent(node)
	in.Epoch = s.l.epoch
	if last != nil {
		in.Rev = last.Rev
		if reflect.DeepEqual(in, last) {
			return nil, change
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// A node that comes back with nothing new to tell keeps its revision, and so its report of having applied it.
	n := s.node(node)
	if n.told != nil {
		in.Rev = n.told.Rev
		if reflect.DeepEqual(in, n.told) {
			return n.told, change
		}
	}
	s.rev++
	in.Rev = s.rev
	n.told = in
	return in, change
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

// Limits of a report.
const (
	maxReport      = 4 << 20 // bytes
	maxKeys        = 1024
	maxAttachments = 1024
	maxPeers       = 100000
	maxProblems    = 256
)

// report takes in what a node says of itself.
func (s *streams) report(rep *fleet.Report) {
	s.mu.Lock()
	n := s.node(rep.Node)
	n.heard, n.report = time.Now(), rep
	s.mu.Unlock()
	lean := leanReport(rep)
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

// leanReport is the part of a report that the roster depends on.
func leanReport(rep *fleet.Report) *fleet.Report {
	out := &fleet.Report{Version: rep.Version, Node: rep.Node, Addrs: rep.Addrs, Port: rep.Port, MTU: rep.MTU, Keys: rep.Keys, Purged: rep.Purged}
	for _, a := range rep.Attachments {
		out.Attachments = append(out.Attachments, fleet.Attachment{
			PodUID: a.PodUID, Namespace: a.Namespace, Pod: a.Pod, Slice: a.Slice, Attached: a.Attached, Reason: a.Reason, Message: a.Message,
		})
	}
	slices.SortFunc(out.Attachments, func(a, b fleet.Attachment) int { return strings.Compare(a.PodUID, b.PodUID) })
	return out
}

// parseReport reads a report strictly: an agent of a newer version that says more must not be half understood.
func parseReport(body []byte) (*fleet.Report, error) {
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.DisallowUnknownFields()
	rep := new(fleet.Report)
	if err := dec.Decode(rep); err != nil {
		return nil, badRequest("report: %v", err)
	}
	if dec.More() {
		return nil, badRequest("report: something follows it")
	}
	switch {
	case rep.Version < 1 || rep.Version > fleet.WireVersion:
		return nil, badRequest("report of version %d, this controller reads up to %d; upgrade the controller first", rep.Version, fleet.WireVersion)
	case rep.Node == "":
		return nil, badRequest("report without a node's name")
	case rep.MTU < 0 || rep.MTU > 65535:
		return nil, badRequest("report with MTU %d", rep.MTU)
	case len(rep.Addrs) > 16 || len(rep.Keys) > maxKeys || len(rep.Attachments) > maxAttachments || len(rep.Peers) > maxPeers || len(rep.Problems) > maxProblems:
		return nil, badRequest("report too long: %d addresses, %d keys, %d attachments, %d peers, %d problems",
			len(rep.Addrs), len(rep.Keys), len(rep.Attachments), len(rep.Peers), len(rep.Problems))
	}
	if i := slices.IndexFunc(rep.Addrs, func(a netip.Addr) bool { return !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() }); i >= 0 {
		return nil, badRequest("report with address %v, at which nobody can reach the node", rep.Addrs[i])
	}
	for slice, k := range rep.Keys {
		if k.IsZero() || slice == "" || len(slice) > 63 {
			return nil, badRequest("report with an empty key or slice name")
		}
	}
	return rep, nil
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
