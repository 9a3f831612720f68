// Package post carries bulletins between clusters and, inside a cluster, between its controller and the nodes that
// carry them. An [Office] holds the newest letters of everyone (a bulletin.Store) and exchanges them over sessions,
// one for each connection:
//
//	controller ══ carrier ───────────── carrier ══ controller      ══ home: each tells the other everything
//	  of c1        on n1 of c1           on n1 of c2    of c2       ── abroad: each tells of its own cluster, and
//	                   └────── carrier ──────┘                         of those that the other wants besides
//	                           of c3
//
// A carrier without a session to some cluster wants that cluster's letters from up to two neighbours that have them.
// So in peace every letter goes once to each cluster, straight from its origin, and a cut costs one more hop, not one
// more copy everywhere. Below that lies an exchange of versions every few seconds, which mends whatever was missed.
//
// Nobody is believed without the origin's signature. What is refused is counted for the one who sent it; who sends too
// much of it is shut out for a while.
package post

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/fleet"
)

// Times of a session.
const (
	beat      = time.Second      // between signs of life
	silence   = 4 * time.Second  // without one after which a session has ended
	compare   = 10 * time.Second // between exchanges of versions, give or take a fifth
	settled   = 2 * time.Second  // after sending news for which the other's version is not taken for a loss
	askAgain  = 200 * time.Millisecond
	shutFirst = 5 * time.Second // for which a peer that misbehaves is shut out, twice as long each time
	shutMost  = 5 * time.Minute
)

// How much a peer may send.
const (
	faultBurst = 50      // letters and frames that are refused, at once
	faultRate  = 2       // and a second
	byteBurst  = 8 << 20 // of everything; whoever sends more is read more slowly
	byteRate   = 4 << 20 // a second
	frameBurst = 5000    // the same, counted in frames
	frameRate  = 2000
	talkBurst  = 100 // frames that are no letters: a beat a second, some versions, some wishes
	talkRate   = 10
)

// neighbours is from how many peers a cluster's letters are wanted that does not tell them itself.
const neighbours = 2

// Config is what an office needs to know.
type Config struct {
	Cluster string // this one
	Node    string // of a carrier; "" for the controller
	Store   *bulletin.Store
	// News is called when something newer of a cluster has come, with who sent it: "cluster/node". It must not block.
	News func(cluster, from string)
	Log  *slog.Logger
}

// Office exchanges letters with its peers. Its methods are safe for concurrent use.
type Office struct {
	cfg Config

	mu       sync.Mutex
	sessions map[*session]bool
	peers    map[string]*record
}

// record is what is known of a peer, over all its sessions.
type record struct {
	state fleet.CarryState
	open  int
	shut  time.Duration // how long it was shut out last
	until time.Time     // shut out
}

// New makes an office.
func New(cfg Config) *Office {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.News == nil {
		cfg.News = func(string, string) {}
	}
	return &Office{cfg: cfg, sessions: map[*session]bool{}, peers: map[string]*record{}}
}

// Peer is the other end of a session, as it was established by other means than its own word: by its address on the
// management slice, or by its token.
type Peer struct {
	Cluster, Node string
}

// ID is "cluster/node"; of a controller "cluster/".
func (p Peer) ID() string { return p.Cluster + "/" + p.Node }

// ErrShut says that a peer has misbehaved and is shut out for a while.
var ErrShut = errors.New("it has sent too much that had to be refused, and is shut out for a while")

// Post takes in a letter of this cluster, or one that came by other ways, and passes it on. Errors are the store's.
func (o *Office) Post(l *bulletin.Letter) error {
	news, err := o.cfg.Store.Put(l)
	if news {
		o.spread(l, nil)
	}
	return err
}

// Serve holds a session with a peer over a connection until it breaks or ctx ends, and closes the connection. The
// error says why; it is never nil.
func (o *Office) Serve(ctx context.Context, conn io.ReadWriteCloser, peer Peer) error {
	s, err := o.open(conn, peer)
	if err != nil {
		_ = conn.Close()
		return err
	}
	err = s.run(ctx)
	o.close(s, err)
	return err
}

func (o *Office) open(conn io.ReadWriteCloser, peer Peer) (*session, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.record(peer.ID())
	now := time.Now()
	if now.Before(r.until) {
		return nil, ErrShut
	}
	if r.open++; r.open == 1 {
		r.state.Up, r.state.Since, r.state.Error = true, now, ""
	}
	s := newSession(o, conn, peer)
	o.sessions[s] = true
	return s, nil
}

func (o *Office) record(id string) *record {
	r := o.peers[id]
	if r == nil {
		r = &record{state: fleet.CarryState{Peer: id}}
		o.peers[id] = r
	}
	return r
}

func (o *Office) close(s *session, why error) {
	o.mu.Lock()
	delete(o.sessions, s)
	r := o.record(s.peer.ID())
	if r.open--; r.open == 0 {
		r.state.Up, r.state.Since, r.state.Error = false, time.Now(), why.Error()
	}
	o.mu.Unlock()
	o.wish()
}

// Failed notes that a peer could not be reached.
func (o *Office) Failed(peer Peer, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.record(peer.ID())
	if r.state.Up = r.open > 0; !r.state.Up {
		r.state.Error = err.Error()
		if r.state.Since.IsZero() {
			r.state.Since = time.Now()
		}
	}
}

// Keep forgets the peers that keep does not hold, and ends their sessions.
func (o *Office) Keep(keep func(Peer) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for s := range o.sessions {
		if !keep(s.peer) {
			s.end(errors.New("it is no carrier any more"))
		}
	}
	maps.DeleteFunc(o.peers, func(id string, r *record) bool {
		cluster, node, _ := strings.Cut(id, "/")
		return r.open == 0 && !keep(Peer{cluster, node})
	})
}

// States tells how it goes with each peer, sorted.
func (o *Office) States() []fleet.CarryState {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make([]fleet.CarryState, 0, len(o.peers))
	for _, r := range o.peers {
		st := r.state
		st.Refused = maps.Clone(st.Refused)
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b fleet.CarryState) int { return strings.Compare(a.Peer, b.Peer) })
	return out
}

// refuse counts what was not taken from a peer.
func (o *Office) refuse(peer Peer, reason bulletin.Reason, what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.record(peer.ID())
	if r.state.Refused == nil {
		r.state.Refused = map[string]int{}
	}
	if r.state.Refused[string(reason)]++; r.state.Refused[string(reason)] == 1 {
		o.cfg.Log.Warn("not taken from a carrier of bulletins", "peer", peer.ID(), "reason", string(reason), "err", what)
	}
}

// shut keeps a peer out for a while.
func (o *Office) shut(peer Peer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.record(peer.ID())
	r.shut = min(max(2*r.shut, shutFirst), shutMost)
	r.until = time.Now().Add(r.shut)
}

// spread has every session look whether its peer is to hear of a letter.
func (o *Office) spread(l *bulletin.Letter, from *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for s := range o.sessions {
		if s != from {
			s.due(l.Cluster, false)
		}
	}
}

// Ask has everybody who has anything of a cluster send the whole of it: what is held of it is of no use here.
func (o *Office) Ask(cluster string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for s := range o.sessions {
		s.ask(cluster, bulletin.Version{})
	}
}

// wish works out from whom which clusters' letters are wanted: from two that have them, for each cluster that tells
// its own to nobody here. At home everything is told anyway.
func (o *Office) wish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	direct := map[string]bool{o.cfg.Cluster: true}
	for s := range o.sessions {
		direct[s.peer.Cluster] = true
	}
	type offer struct {
		s *session
		v bulletin.Version
	}
	offers := map[string][]offer{}
	for s := range o.sessions {
		if s.home() {
			continue
		}
		for cluster, v := range s.theirs() {
			if !direct[cluster] {
				offers[cluster] = append(offers[cluster], offer{s, v})
			}
		}
	}
	wants := map[*session][]string{}
	for cluster, list := range offers {
		slices.SortFunc(list, func(a, b offer) int {
			switch {
			case a.v.Newer(b.v):
				return -1
			case b.v.Newer(a.v):
				return 1
			}
			return cmp.Compare(a.s.peer.ID(), b.s.peer.ID())
		})
		for _, of := range list[:min(len(list), neighbours)] {
			wants[of.s] = append(wants[of.s], cluster)
		}
	}
	for s := range o.sessions {
		slices.Sort(wants[s])
		s.want(wants[s])
	}
}

// around returns a time near d, so that what began together does not go on together.
func around(d time.Duration) time.Duration { return d - d/5 + rand.N(2*d/5) }

func errSilent(peer Peer) error {
	return fmt.Errorf("nothing was heard from %s for %s", peer.ID(), silence)
}
