package post

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"seaway.dev/seaway/bulletin"
)

// session is one connection with a peer. Nothing queues up in it: what the peer is to be sent is what it has not, and
// that is looked up when there is room to send.
type session struct {
	office *Office
	conn   io.ReadWriteCloser
	peer   Peer
	wake   chan struct{}

	mu     sync.Mutex
	closed error                       // why it ended
	has    map[string]bulletin.Version // what the peer has, as far as is known
	before map[string]bulletin.Version // what was held here when the peer last said what it has
	sent   map[string]time.Time        // when it was last sent something of a cluster
	seen   map[string]bulletin.Version // the newest it has sent of each
	whole  map[string]bulletin.Version // the newest of those that were whole
	asked  map[string]time.Time        // when something of a cluster was asked for
	wanted map[string]bool             // by the peer
	pushes map[string]bool             // clusters to look at
	wants  []string                    // what it was told is wanted of it
	says   []any                       // frames to be sent
	heard  bool                        // it has said what it has
}

func newSession(o *Office, conn io.ReadWriteCloser, peer Peer) *session {
	s := &session{
		office: o, conn: conn, peer: peer, wake: make(chan struct{}, 1),
		has: map[string]bulletin.Version{}, before: map[string]bulletin.Version{}, sent: map[string]time.Time{},
		seen: map[string]bulletin.Version{}, whole: map[string]bulletin.Version{}, asked: map[string]time.Time{}, wanted: map[string]bool{}, pushes: map[string]bool{},
	}
	s.says = []any{bulletin.NewHello(o.cfg.Cluster, o.cfg.Node), s.all()}
	return s
}

// home tells whether the peer is of this cluster.
func (s *session) home() bool { return s.peer.Cluster == s.office.cfg.Cluster }

// end closes the session.
func (s *session) end(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed == nil {
		s.closed = why
		_ = s.conn.Close()
	}
}

func (s *session) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *session) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run speaks and listens until the session ends.
func (s *session) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.end(ctx.Err()) })
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.end(s.speak(ctx))
	}()
	s.end(s.listen(ctx))
	cancel()
	<-done
	return s.why()
}

// due has the peer sent what it lacks of a cluster: if it is to hear of that cluster at all, or forced.
func (s *session) due(cluster string, forced bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heard && (forced || s.tells(cluster)) {
		s.pushes[cluster] = true
		s.poke()
	}
}

// tells says whether a cluster's letters go to the peer as they come. Callers hold mu.
func (s *session) tells(cluster string) bool {
	return s.home() || cluster == s.office.cfg.Cluster || s.wanted[cluster]
}

// ask has the peer send what it has of a cluster that is newer than a version.
func (s *session) ask(cluster string, have bulletin.Version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.asked[cluster]) < askAgain {
		return
	}
	s.asked[cluster] = time.Now()
	delete(s.seen, cluster) // it will send again what it has sent
	delete(s.whole, cluster)
	s.says = append(s.says, &bulletin.Have{Ask: true, Have: map[string]bulletin.Version{cluster: have}})
	s.poke()
}

// want tells the peer whose letters are wanted of it.
func (s *session) want(clusters []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heard && !slices.Equal(s.wants, clusters) {
		s.wants = clusters
		s.says = append(s.says, &bulletin.Want{Clusters: clusters})
		s.poke()
	}
}

// theirs returns what the peer has.
func (s *session) theirs() map[string]bulletin.Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.has)
}

// speak sends frames until the connection breaks.
func (s *session) speak(ctx context.Context) error {
	beats := time.NewTicker(beat)
	defer beats.Stop()
	next := time.Now().Add(around(compare))
	for {
		if err := s.flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		case now := <-beats.C:
			say := &bulletin.Have{}
			if now.After(next) {
				say, next = s.all(), now.Add(around(compare))
				s.office.wish()
			}
			s.mu.Lock()
			s.says = append(s.says, say)
			s.mu.Unlock()
		}
	}
}

func (s *session) all() *bulletin.Have {
	return &bulletin.Have{All: true, Have: s.office.cfg.Store.Have()}
}

// flush writes all that is due now.
func (s *session) flush() error {
	s.mu.Lock()
	says, pushes := s.says, s.pushes
	s.says, s.pushes = nil, map[string]bool{}
	s.mu.Unlock()
	var out []byte
	write := func() error {
		if len(out) == 0 {
			return nil
		}
		late := time.AfterFunc(silence, func() { s.end(fmt.Errorf("%s does not take what it is told", s.peer.ID())) })
		defer late.Stop()
		_, err := s.conn.Write(out)
		out = out[:0]
		return err
	}
	put := func(say any) (err error) {
		if out, err = bulletin.AppendFrame(out, say); err == nil && len(out) > 64<<10 {
			err = write()
		}
		return err
	}
	for _, say := range says {
		if err := put(say); err != nil {
			return err
		}
	}
	for _, cluster := range slices.Sorted(maps.Keys(pushes)) {
		for _, l := range s.lacks(cluster) {
			if err := put(l); err != nil {
				return err
			}
		}
	}
	return write()
}

// lacks returns the letters of a cluster that the peer is to be sent now, and takes it that they arrive.
func (s *session) lacks(cluster string) []*bulletin.Letter {
	s.mu.Lock()
	defer s.mu.Unlock()
	letters := s.office.cfg.Store.Since(cluster, s.has[cluster])
	if len(letters) > 0 {
		s.has[cluster], s.sent[cluster] = letters[len(letters)-1].Version(), time.Now()
	}
	return letters
}

// listen takes frames in until the connection breaks or the peer is shut out.
func (s *session) listen(ctx context.Context) error {
	silent := time.AfterFunc(silence, func() { s.end(errSilent(s.peer)) })
	defer silent.Stop()
	faults := bucket{level: faultBurst, burst: faultBurst, rate: faultRate, at: time.Now()}
	bytes := bucket{level: byteBurst, burst: byteBurst, rate: byteRate, at: time.Now()}
	frames := bucket{level: frameBurst, burst: frameBurst, rate: frameRate, at: time.Now()}
	talk := bucket{level: talkBurst, burst: talkBurst, rate: talkRate, at: time.Now()}
	in := &counted{r: bufio.NewReaderSize(s.conn, 16<<10)}
	for greeted := false; ; {
		say, err := bulletin.ReadFrame(in)
		var fault *bulletin.Refused
		switch {
		case errors.Is(err, bulletin.ErrGarbage):
			s.office.refuse(s.peer, bulletin.Garbage, err.Error())
			s.office.shut(s.peer) // nothing after it can be read
			return fmt.Errorf("%w: %w", ErrShut, err)
		case err != nil:
			return fmt.Errorf("connection with %s: %w", s.peer.ID(), err)
		}
		silent.Reset(silence)
		if _, letter := say.(*bulletin.Letter); !letter && !talk.take(1, time.Now()) {
			err = &bulletin.Refused{Reason: bulletin.Flood, What: "more talk than anybody needs"}
		} else {
			greeted, err = s.take(say, greeted)
		}
		if errors.As(err, &fault) {
			s.office.refuse(s.peer, fault.Reason, fault.What)
			if fault.Reason != bulletin.Stranger && !faults.take(1, time.Now()) {
				s.office.refuse(s.peer, bulletin.Flood, "too much that had to be refused")
				s.office.shut(s.peer)
				return ErrShut
			}
		} else if err != nil {
			return err
		}
		if wait := max(bytes.wait(float64(in.reset()), time.Now()), frames.wait(1, time.Now())); wait > 0 {
			silent.Reset(silence + wait)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(wait):
			}
		}
	}
}

// take takes one frame in. A *bulletin.Refused is counted; another error ends the session.
func (s *session) take(say any, greeted bool) (bool, error) {
	hello, first := say.(*bulletin.Hello)
	if first == greeted {
		return greeted, &bulletin.Refused{Reason: bulletin.Garbage, What: "a hello is said first, and once"}
	}
	switch v := say.(type) {
	case *bulletin.Hello:
		if hello.Cluster != s.peer.Cluster || hello.Node != s.peer.Node {
			s.office.refuse(s.peer, bulletin.Forged, fmt.Sprintf("it calls itself %s/%s", hello.Cluster, hello.Node))
			return false, fmt.Errorf("%s calls itself %s/%s", s.peer.ID(), hello.Cluster, hello.Node)
		}
		return true, nil
	case *bulletin.Have:
		s.takeHave(v)
	case *bulletin.Want:
		s.takeWant(v)
	case *bulletin.Letter:
		return greeted, s.takeLetter(v)
	}
	return greeted, nil
}

// takeHave compares what the peer has with what is held here. News that are on their way to the peer are no loss.
func (s *session) takeHave(h *bulletin.Have) {
	if !h.All && !h.Ask {
		return // a sign of life
	}
	held := s.office.cfg.Store.Have()
	now := time.Now()
	s.mu.Lock()
	first := !s.heard
	s.heard = true
	var due []string
	for cluster, have := range held {
		theirs, listed := h.Have[cluster]
		if !listed && !h.All {
			continue
		}
		if !h.Ask && theirs != s.has[cluster] && !theirs.Newer(s.has[cluster]) && now.Sub(s.sent[cluster]) < settled {
			continue
		}
		s.has[cluster] = theirs
		// What is told as it comes is told now; what others should have told it long ago, too.
		if have.Newer(theirs) && (h.Ask || s.tells(cluster) || s.before[cluster].Newer(theirs)) {
			due = append(due, cluster)
		}
	}
	for cluster, theirs := range h.Have {
		if _, ok := held[cluster]; !ok && h.All && len(s.has) < 1<<13 {
			s.has[cluster] = theirs
		}
	}
	if h.All {
		s.before = held
	}
	s.mu.Unlock()
	for _, cluster := range due {
		s.due(cluster, true)
	}
	if first {
		s.office.wish()
	}
}

func (s *session) takeWant(w *bulletin.Want) {
	s.mu.Lock()
	s.wanted = map[string]bool{}
	for _, c := range w.Clusters {
		s.wanted[c] = true
	}
	s.mu.Unlock()
	for _, c := range w.Clusters {
		s.due(c, false)
	}
}

func (s *session) takeLetter(l *bulletin.Letter) error {
	news, err := s.office.cfg.Store.Put(l)
	v := l.Version()
	switch {
	case errors.Is(err, bulletin.ErrGap):
		s.ask(l.Cluster, s.office.cfg.Store.Have()[l.Cluster])
		return nil
	case err != nil:
		return err
	}
	s.mu.Lock()
	seen := s.seen
	if l.Base == 0 && v == s.seen[l.Cluster] {
		seen = s.whole // the changes first, and then the whole of them
	}
	again := !news && !v.Newer(seen[l.Cluster]) && time.Since(s.asked[l.Cluster]) > settled
	if v.Newer(s.seen[l.Cluster]) {
		s.seen[l.Cluster] = v
	}
	if l.Base == 0 && v.Newer(s.whole[l.Cluster]) {
		s.whole[l.Cluster] = v
	}
	if v.Newer(s.has[l.Cluster]) {
		s.has[l.Cluster] = v
	}
	s.mu.Unlock()
	if again {
		return &bulletin.Refused{Reason: bulletin.Replay, What: fmt.Sprintf("letter %d of cluster %s again", l.Rev, l.Cluster)}
	}
	if news {
		s.office.spread(l, s)
		s.office.cfg.News(l.Cluster, s.peer.ID())
	}
	return nil
}

// bucket is a token bucket. Its clock is the caller's.
type bucket struct {
	level, burst, rate float64
	at                 time.Time
}

func (b *bucket) fill(now time.Time) {
	b.level = min(b.burst, b.level+b.rate*now.Sub(b.at).Seconds())
	b.at = now
}

// take takes tokens if there are enough.
func (b *bucket) take(n float64, now time.Time) bool {
	b.fill(now)
	if b.level < n {
		return false
	}
	b.level -= n
	return true
}

// wait takes tokens and says how long to wait until there are that many.
func (b *bucket) wait(n float64, now time.Time) time.Duration {
	b.fill(now)
	b.level -= n
	if b.level >= 0 {
		return 0
	}
	return time.Duration(-b.level / b.rate * float64(time.Second))
}

// counted counts what is read.
type counted struct {
	r io.Reader
	n int
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += n
	return n, err
}

func (c *counted) reset() int {
	n := c.n
	c.n = 0
	return n
}
