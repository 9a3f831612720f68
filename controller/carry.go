package controller

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/bulletin/post"
	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/delta"
	"seaway.dev/seaway/fleet"
)

// Where a carrier's connection becomes a session, and the protocol that it asks for.
const (
	carryPath     = "/v1/bulletins"
	carryProtocol = "seaway-bulletins"
)

// carry exchanges bulletins with this cluster's carriers, which exchange them with other clusters', and puts what
// comes on the board:
//
//	mailbox ── own letters ──▶ ┌────────┐ ◀══▶ carriers (nodes of this cluster) ◀══▶ carriers of others
//	hub     ── others' ──────▶ │ office │ ── news ──▶ run: read, apply ──▶ board
//	                           └────────┘
type carry struct {
	l      *leader
	store  *bulletin.Store
	office *post.Office
	wake   chan struct{}
	met    atomic.Bool // a carrier of this cluster has come

	mu      sync.Mutex
	signers map[string]fleet.Key // of all members
	news    map[string]string    // cluster → who brought it
	way     map[string]string    // cluster → how its newest bulletin came
	blamed  map[string]blame     // cluster → what was not taken from its carriers
}

// blame is what was not taken from a cluster's carriers, and when that last became more.
type blame struct {
	counts map[string]int
	grew   time.Time
}

// blameFor is how long a cluster is complained of after the last letter that was refused.
const blameFor = 5 * time.Minute

// blame notes what was refused by now. Callers hold mu.
func (c *carry) blame(refusals map[string]map[string]int, now time.Time) {
	for cluster, counts := range refusals {
		was := c.blamed[cluster]
		for reason, n := range counts {
			if reason != string(bulletin.Stranger) && n > was.counts[reason] {
				was.grew = now
			}
			c.l.meters.letters.WithLabelValues(cluster, reason).Set(float64(n))
		}
		was.counts = counts
		c.blamed[cluster] = was
	}
}

// problems complains of clusters whose carriers misbehave.
func (c *carry) problems(now time.Time) (out []fleet.Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cluster := range slices.Sorted(maps.Keys(c.blamed)) {
		b := c.blamed[cluster]
		if b.grew.IsZero() || now.Sub(b.grew) > blameFor {
			continue
		}
		var parts []string
		for _, reason := range slices.Sorted(maps.Keys(b.counts)) {
			parts = append(parts, fmt.Sprintf("%s %d", reason, b.counts[reason]))
		}
		out = append(out, fleet.Problem{
			Reason: "CarrierRefused", Where: "cluster " + cluster,
			Message: "its carriers sent what was not taken: " + strings.Join(parts, ", "),
			Next:    "nothing of it was believed or passed on; look at the nodes of cluster " + cluster + " that carry bulletins: one of them errs, or is in somebody else's hands",
		})
	}
	return out
}

func newCarry(l *leader) *carry {
	c := &carry{l: l, wake: make(chan struct{}, 1), signers: map[string]fleet.Key{}, news: map[string]string{}, way: map[string]string{}, blamed: map[string]blame{}}
	c.store = bulletin.NewStore(c.signer)
	c.office = post.New(post.Config{Cluster: l.cfg.Cluster, Store: c.store, News: c.heard, Log: l.log})
	l.mailbox.post = c.post
	return c
}

func (c *carry) signer(cluster string) (fleet.Key, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.signers[cluster]
	return k, ok && !k.IsZero()
}

// open begins to sign.
func (c *carry) open(ctx context.Context) error {
	key, err := openSigning(ctx, c.l.client, c.l.cfg.Namespace)
	if err != nil {
		return err
	}
	c.sign(key)
	return nil
}

func (c *carry) sign(key ed25519.PrivateKey) {
	c.mu.Lock()
	c.signers[c.l.cfg.Cluster] = publicKey(key) // whatever the hub publishes yet
	c.mu.Unlock()
	c.l.mailbox.open(key, c.l.epoch)
}

// setMembers says whose signatures are to be believed. What was not believed before is asked for again.
func (c *carry) setMembers(members []roster.Member) {
	c.mu.Lock()
	now := map[string]fleet.Key{}
	var changed []string
	for _, m := range members {
		if m.Name == c.l.cfg.Cluster {
			continue
		}
		now[m.Name] = m.Signer
		if c.signers[m.Name] != m.Signer {
			changed = append(changed, m.Name)
		}
	}
	own := c.signers[c.l.cfg.Cluster]
	c.signers = now
	if !own.IsZero() {
		now[c.l.cfg.Cluster] = own
	}
	c.mu.Unlock()
	c.store.Keep(func(cluster string) bool { _, ok := now[cluster]; return ok })
	for _, name := range changed {
		c.office.Ask(name)
	}
}

// post takes in a letter of this cluster. It does not block: sessions send by themselves.
func (c *carry) post(l *bulletin.Letter) {
	if err := c.office.Post(l); err != nil {
		c.l.log.Error("own bulletin not taken", "rev", l.Rev, "base", l.Base, "err", err)
	}
}

// heard notes that there is news of a cluster.
func (c *carry) heard(cluster, from string) {
	c.mu.Lock()
	c.news[cluster] = from
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// fromHub takes in a bulletin from its cluster's mailbox. The hub lets nobody else write there, so it counts even
// without a signature; with one it is passed on.
func (c *carry) fromHub(cluster string, b *fleet.Bulletin, body, sig []byte) {
	l := &bulletin.Letter{Cluster: cluster, Epoch: b.Epoch, Rev: b.Rev, Body: body}
	if len(sig) == len(l.Sig) && b.Rev > 0 {
		copy(l.Sig[:], sig)
		// A key that is not published yet is no reason for anything: the bulletin counts below.
		_ = c.office.Post(l)
	}
	c.put(b, "hub")
}

// put puts a bulletin on the board if it is newer.
func (c *carry) put(b *fleet.Bulletin, way string) {
	taken := false
	c.l.board.hear(func(bulletins map[string]*fleet.Bulletin) bool {
		taken = b.Newer(bulletins[b.Cluster])
		if taken {
			bulletins[b.Cluster] = b
		}
		return taken
	})
	if taken {
		c.mu.Lock()
		c.way[b.Cluster] = way
		c.mu.Unlock()
	}
}

// run reads what comes until ctx ends.
func (c *carry) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		}
		c.mu.Lock()
		news := c.news
		c.news = map[string]string{}
		c.mu.Unlock()
		for _, cluster := range slices.Sorted(maps.Keys(news)) {
			c.read(cluster, news[cluster])
		}
	}
}

// read brings what is known of a cluster up to date with its letters.
func (c *carry) read(cluster, from string) {
	if cluster == c.l.cfg.Cluster {
		c.l.mailbox.seen(c.store.Have()[cluster])
		return
	}
	c.l.board.mu.Lock()
	have := c.l.board.facts.Bulletins[cluster]
	c.l.board.mu.Unlock()
	var at bulletin.Version
	if have != nil {
		at = bulletin.Version{Epoch: have.Epoch, Rev: have.Rev}
	}
	letters := c.store.Since(cluster, at)
	now, err := unfold(have, letters)
	c.l.status.refused(cluster, err)
	if err != nil {
		// It was signed like this: asking again for the same helps only if a later one says the whole.
		c.l.meters.bulletins.WithLabelValues("refused").Inc()
		c.l.log.Warn("bulletin refused", "peer", cluster, "from", from, "err", err)
		return
	}
	if now == have {
		return
	}
	c.l.meters.bulletins.WithLabelValues("taken").Add(float64(len(letters)))
	c.put(now, "carriers")
}

// unfold reads letters, each on the one before, on what is known.
func unfold(have *fleet.Bulletin, letters []*bulletin.Letter) (*fleet.Bulletin, error) {
	now := have
	for _, l := range letters {
		if l.Base == 0 {
			b, err := bulletin.Decode(l.Body)
			if err != nil {
				return have, err
			}
			now = b
		} else {
			d, err := bulletin.DecodeDelta(l.Body)
			if err == nil {
				now, err = delta.ApplyBulletin(now, d)
			}
			if err != nil {
				return have, err
			}
		}
		if now.Cluster != l.Cluster || now.Epoch != l.Epoch || now.Rev != l.Rev {
			return have, fmt.Errorf("bulletin of %.64q %d/%d in letter %d/%d of cluster %s", now.Cluster, now.Epoch, now.Rev, l.Epoch, l.Rev, l.Cluster)
		}
	}
	if now != have {
		if err := bulletin.Limits(now); err != nil {
			return have, err
		}
	}
	return now, nil
}

// members fills in how the other clusters are heard, from what the carriers report.
func (c *carry) members(out []fleet.MemberState, live map[string]nodeStream) {
	direct := map[string]int{}
	refusals := map[string]map[string]int{}
	abroad := false
	for _, n := range live {
		if n.report == nil || n.open == 0 {
			continue
		}
		up := map[string]bool{}
		for _, st := range n.report.Carrying {
			peer, _, _ := strings.Cut(st.Peer, "/")
			if st.Up && peer != c.l.cfg.Cluster {
				up[peer], abroad = true, true
			}
			for reason, count := range st.Refused {
				if refusals[peer] == nil {
					refusals[peer] = map[string]int{}
				}
				refusals[peer][reason] += count
			}
		}
		for peer := range up {
			direct[peer]++
		}
	}
	c.l.mailbox.setLazy(abroad)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blame(refusals, time.Now())
	for i := range out {
		m := &out[i]
		m.Way, m.Direct, m.Refusals = c.way[m.Name], direct[m.Name], refusals[m.Name]
	}
}

// bulletins makes a carrier's connection a session.
func (h *handler) bulletins(w http.ResponseWriter, r *http.Request, node string) error {
	if r.Header.Get("Upgrade") != carryProtocol {
		return httpError{http.StatusUpgradeRequired, "this is for carriers: ask for an upgrade to " + carryProtocol}
	}
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return httpError{http.StatusHTTPVersionNotSupported, "a session needs a connection of its own: HTTP/1.1"}
	}
	conn, buffered, err := hijacker.Hijack()
	if err != nil {
		return fmt.Errorf("take over the connection: %w", err)
	}
	ctx := r.Context()
	_ = conn.SetDeadline(time.Time{})
	if buffered.Reader.Buffered() > 0 {
		_ = conn.Close()
		return errors.New("a carrier speaks before it is answered")
	}
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", carryProtocol); err != nil {
		_ = conn.Close()
		return nil
	}
	h.streams.l.carry.met.Store(true)
	err = h.streams.l.carry.office.Serve(ctx, conn, post.Peer{Cluster: h.streams.l.cfg.Cluster, Node: node})
	h.log.Info("a carrier's session ended", "node", node, "err", err)
	return nil
}
