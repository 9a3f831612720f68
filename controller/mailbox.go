package controller

import (
	"reflect"
	"sync"
	"time"

	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/fleet"
)

// bulletinPace is the shortest time between two writes of the bulletin; a large one waits longer, by the time that
// sending it costs everybody.
const (
	bulletinPace  = 100 * time.Millisecond
	bulletinSlice = 32 << 10 // bytes that cost one more bulletinPace
)

// mailbox holds the bulletin that the other clusters should hear, numbers it, and knows whether they have it.
type mailbox struct {
	mu      sync.Mutex
	want    *fleet.Bulletin // without Epoch and Rev
	epoch   uint64
	rev     uint64
	wire    []byte // the newest packed form
	sent    bool   // wire is in the mailbox
	problem error  // why want cannot be packed
	wake    chan struct{}
	cluster string
}

func newMailbox(cluster string) *mailbox {
	return &mailbox{cluster: cluster, wake: make(chan struct{}, 1)}
}

// offer says what the others should hear from now on.
func (m *mailbox) offer(b *fleet.Bulletin) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.want != nil && reflect.DeepEqual(m.want, b) {
		return
	}
	m.want, m.wire, m.sent = b, nil, false
	m.kick()
}

func (m *mailbox) kick() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// begin starts a new epoch, later than any that the mailbox has seen.
func (m *mailbox) begin(now time.Time, seen *fleet.Bulletin) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := max(m.epoch, uint64(now.UnixNano()))
	if seen != nil && seen.Cluster == m.cluster && seen.Epoch >= next {
		next = seen.Epoch + 1
	}
	if next != m.epoch {
		m.epoch, m.rev = next, 0
	}
	m.wire, m.sent = nil, false
	m.kick()
}

// take returns what is to be written now; nil if the mailbox has it already.
func (m *mailbox) take() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.want == nil || m.sent {
		return nil
	}
	if m.wire == nil {
		b := *m.want
		m.rev++
		b.Epoch, b.Rev = m.epoch, m.rev
		if m.wire, m.problem = bulletin.Encode(&b); m.problem != nil {
			m.sent = true // until something changes
			return nil
		}
	}
	return m.wire
}

// done says that a packed form was written.
func (m *mailbox) done(wire []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent = m.sent || (len(wire) > 0 && len(m.wire) > 0 && &wire[0] == &m.wire[0])
}

// observe compares what the mailbox holds with what was written, and has it written again if somebody changed it.
func (m *mailbox) observe(held []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sent && m.wire != nil && !reflect.DeepEqual(held, m.wire) {
		m.sent = false
		m.kick()
	}
}

// pace is how long to wait after a write of some bytes.
func (m *mailbox) pace(bytes int) time.Duration {
	return bulletinPace * time.Duration(1+bytes/bulletinSlice)
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
