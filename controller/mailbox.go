package controller

import (
	"crypto/ed25519"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/delta"
	"seaway.dev/seaway/fleet"
)

// bulletinPace is the shortest time between two writes of the bulletin to the hub; a large one waits longer, by the
// time that sending it costs everybody. Where carriers tell the others directly, the hub is told only now and then of
// what it does not act upon itself.
const (
	bulletinPace  = 100 * time.Millisecond
	bulletinSlice = 32 << 10 // bytes that cost one more bulletinPace
	bulletinLazy  = 5 * time.Second
)

// mailbox holds the bulletin that the other clusters should hear, numbers it, and signs it:
//
//	offer ─┬─▶ a letter with what changed, at once ─▶ carriers
//	       └─▶ the whole, at its pace             ─▶ the mailbox on the hub
type mailbox struct {
	cluster string
	post    func(*bulletin.Letter) // to the carriers; it must not block
	log     *slog.Logger

	mu         sync.Mutex
	key        ed25519.PrivateKey // none: nothing is signed yet
	now        *fleet.Bulletin    // the newest, numbered; nil before the first offer
	epoch, rev uint64
	deltas     int // letters since the last whole one, and their bytes
	deltaBytes int
	wholeBytes int  // of the last whole letter
	again      bool // the next letter is to be a whole one

	whole   *bulletin.Letter // of now; nil until it is needed
	wrote   *fleet.Bulletin  // what the hub's mailbox holds
	wire    []byte           // the same as written
	problem error            // why now cannot be packed
	lazy    bool             // the others hear directly
	wake    chan struct{}
}

func newMailbox(cluster string) *mailbox {
	return &mailbox{cluster: cluster, wake: make(chan struct{}, 1), post: func(*bulletin.Letter) {}, log: slog.New(slog.DiscardHandler)}
}

// open begins to sign, in an epoch.
func (m *mailbox) open(key ed25519.PrivateKey, epoch uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.key, m.epoch, m.rev, m.again = key, max(epoch, m.epoch), 0, true
}

// offer says what the others should hear from now on.
func (m *mailbox) offer(b *fleet.Bulletin) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b.Signer = publicKey(m.key)
	b.Epoch, b.Rev = m.epoch, m.rev+1
	var d *fleet.BulletinDelta
	if m.now != nil && !m.again {
		d = delta.Bulletin(m.now, b)
		if d != nil && d.Head == nil && len(d.Nodes)+len(d.NodesGone)+len(d.Pods)+len(d.PodsGone)+len(d.Exports)+len(d.ExportsGone) == 0 {
			return
		}
		if was := *m.now; d == nil {
			was.Rev = b.Rev
			if reflect.DeepEqual(&was, b) {
				return
			}
		}
	}
	m.tell(b, d)
}

// tell numbers and signs a bulletin, and posts it. Callers hold mu.
func (m *mailbox) tell(b *fleet.Bulletin, d *fleet.BulletinDelta) {
	m.rev = b.Rev
	m.now, m.whole, m.problem = b, nil, nil
	m.kick()
	if d == nil || m.again || bulletin.NeedsWhole(m.deltas, m.deltaBytes, m.wholeBytes) {
		if d != nil && !m.again {
			m.change(d) // first what changed, which is short; then the whole, which shortens what everybody keeps
		}
		m.write()
		return
	}
	m.change(d)
}

// change posts a letter with what changed.
func (m *mailbox) change(d *fleet.BulletinDelta) {
	if len(m.key) == 0 {
		return
	}
	l, err := bulletin.Write(m.now, d, m.key)
	if err != nil {
		m.write()
		return
	}
	m.deltas, m.deltaBytes = m.deltas+1, m.deltaBytes+len(l.Body)
	m.post(l)
}

// write makes the whole letter of now, once, and posts it. Callers hold mu.
func (m *mailbox) write() {
	if m.whole != nil || m.now == nil {
		return
	}
	body, err := bulletin.Encode(m.now)
	if err != nil {
		if m.problem == nil {
			m.log.Error("the bulletin cannot be packed", "err", err)
		}
		m.problem = err
		return
	}
	m.whole, m.again = &bulletin.Letter{Cluster: m.cluster, Epoch: m.now.Epoch, Rev: m.now.Rev, Body: body}, false
	m.deltas, m.deltaBytes, m.wholeBytes = 0, 0, len(body)
	if len(m.key) > 0 {
		m.whole.Sign(m.key)
		m.post(m.whole)
	}
}

func (m *mailbox) kick() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// seen compares with a version of this cluster's own bulletin that is about, by whatever way: if it is newer than this
// replica's, a clock went back, and a later epoch begins.
func (m *mailbox) seen(v bulletin.Version) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !v.Newer(bulletin.Version{Epoch: m.epoch, Rev: m.rev}) {
		return
	}
	m.epoch, m.rev, m.again = max(v.Epoch+1, uint64(time.Now().UnixNano())), 0, true
	m.wrote, m.wire = nil, nil
	if m.now != nil {
		b := *m.now
		b.Epoch, b.Rev = m.epoch, 1
		m.tell(&b, nil)
	}
}

// begin begins a session with the hub, whose mailbox holds something.
func (m *mailbox) begin(held *fleet.Bulletin) {
	if held != nil && held.Cluster == m.cluster {
		m.seen(bulletin.Version{Epoch: held.Epoch, Rev: held.Rev})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wrote, m.wire = nil, nil
	m.kick()
}

// take returns what is to be written to the hub now; nil if it has it already.
func (m *mailbox) take() *bulletin.Letter {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.now == nil || m.wrote == m.now {
		return nil
	}
	m.write()
	return m.whole
}

// done says that a letter was written to the hub.
func (m *mailbox) done(l *bulletin.Letter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.whole == l {
		m.wrote, m.wire = m.now, l.Body
	}
}

// observe compares what the hub's mailbox holds with what was written, and has it written again if somebody changed it.
func (m *mailbox) observe(held []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wrote != nil && m.wrote == m.now && !slices.Equal(held, m.wire) {
		m.wrote = nil
		m.kick()
	}
}

// setLazy says whether the other clusters hear directly.
func (m *mailbox) setLazy(lazy bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lazy = lazy
}

// pace is how long to leave between writes to the hub. What the hub acts upon itself (nodes, demand of addresses, the
// signing key) does not wait for long.
func (m *mailbox) pace() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	short := bulletinPace * time.Duration(1+len(m.wire)/bulletinSlice)
	if m.lazy && m.wrote != nil && m.now != nil && sameForHub(m.wrote, m.now) {
		return max(short, bulletinLazy)
	}
	return short
}

func sameForHub(a, b *fleet.Bulletin) bool {
	x, y := *a, *b
	x.Rev, x.Epoch, x.Pods, x.Exports, x.Scaling = 0, 0, nil, nil, nil
	y.Rev, y.Epoch, y.Pods, y.Exports, y.Scaling = 0, 0, nil, nil, nil
	return reflect.DeepEqual(&x, &y)
}

// trouble is why the bulletin cannot be sent, nil if it can.
func (m *mailbox) trouble() *fleet.Problem {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.problem == nil {
		return nil
	}
	return &fleet.Problem{
		Reason: "BulletinTooLarge", Where: "cluster " + m.cluster, Message: m.problem.Error(),
		Next: "the other clusters keep what they heard last; put fewer pods or services of this cluster on slices",
	}
}
