package wan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// nfnetlink's numbers for queues (linux/netfilter/nfnetlink_queue.h).
const (
	msgPacket, msgVerdict, msgConfig, msgVerdictBatch = 0, 1, 2, 3

	cfgCmd, cfgParams, cfgMaxLen, cfgMask, cfgFlags = 1, 2, 3, 4, 5
	cmdBind                                         = 1
	copyPacket                                      = 2
	flagGSO                                         = 4

	attrPacketHeader, attrVerdictHeader, attrPayload, attrCapLen = 1, 2, 10, 13

	verdictDrop, verdictAccept = 0, 1

	queueLength  = 1 << 17
	receiveSpace = 64 << 20
)

var (
	be = binary.BigEndian
	ne = binary.NativeEndian
)

// queue holds one path's packets. A thread of its own waits for packets and for
// the next due time in one system call, which is precise to about 50 µs.
type queue struct {
	number uint16
	socket int
	wake   int
	log    *slog.Logger
	start  time.Time
	done   chan struct{}

	mu    sync.Mutex
	sched schedule
	want  Quality
	dirty bool
	ended bool
}

// openQueue begins to listen; it must be called in the router's namespace.
func openQueue(number int, q Quality, log *slog.Logger) (*queue, error) {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("netfilter socket: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(err, unix.Close(s))
	}
	w := &queue{number: uint16(number), socket: s, wake: wake, log: log.With("queue", number), start: time.Now(), done: make(chan struct{})}
	w.sched = schedule{quality: q, rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
	if err := w.bind(q); err != nil {
		return nil, errors.Join(fmt.Errorf("queue %d: %w", number, err), unix.Close(s), unix.Close(wake))
	}
	go w.run()
	return w, nil
}

func (w *queue) bind(q Quality) error {
	if err := unix.Bind(w.socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	_ = unix.SetsockoptInt(w.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveSpace)
	_ = unix.SetsockoptInt(w.socket, unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1)
	if err := w.send(msgConfig, attribute(cfgCmd, []byte{cmdBind, 0, 0, 0})); err != nil {
		return err
	}
	return w.configure(q)
}

// configure asks for one byte of each packet: enough to be told its length.
func (w *queue) configure(q Quality) error {
	flags := uint32(0)
	if q.Loss == 0 && q.Rate == 0 && q.Reorder == 0 {
		// Large TCP packets may stay whole if each gets the same delay. Anything
		// else is done to packets as they would be on a wire.
		flags = flagGSO
	}
	return w.send(msgConfig, attribute(cfgParams, append(u32(1), copyPacket)), attribute(cfgMaxLen, u32(queueLength)),
		attribute(cfgFlags, u32(flags)), attribute(cfgMask, u32(flagGSO)))
}

func (w *queue) send(kind uint16, attrs ...[]byte) error {
	b := make([]byte, 20, 64)
	b[16] = unix.AF_UNSPEC
	be.PutUint16(b[18:], w.number)
	for _, a := range attrs {
		b = append(b, a...)
	}
	ne.PutUint32(b, uint32(len(b)))
	ne.PutUint16(b[4:], unix.NFNL_SUBSYS_QUEUE<<8|kind)
	ne.PutUint16(b[6:], unix.NLM_F_REQUEST)
	return unix.Sendto(w.socket, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

func attribute(kind uint16, data []byte) []byte {
	b := make([]byte, (4+len(data)+3)&^3)
	ne.PutUint16(b, uint16(4+len(data)))
	ne.PutUint16(b[2:], kind)
	copy(b[4:], data)
	return b
}

func u32(v ...uint32) []byte {
	b := make([]byte, 4*len(v))
	for i, x := range v {
		be.PutUint32(b[4*i:], x)
	}
	return b
}

func (w *queue) verdict(kind uint16, id, v uint32) {
	if err := w.send(kind, attribute(attrVerdictHeader, u32(v, id))); err != nil {
		w.log.Error("verdict", "error", err)
	}
}

// set changes the quality from the next packet on.
func (w *queue) set(q Quality) {
	w.mu.Lock()
	w.want, w.dirty = q, true
	w.mu.Unlock()
	w.poke()
}

// close lets everything go that is held, and stops.
func (w *queue) close() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.poke()
	<-w.done
}

func (w *queue) poke() { _, _ = unix.Write(w.wake, ne.AppendUint64(nil, 1)) }

func (w *queue) stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sched.stats
}

func (w *queue) run() {
	runtime.LockOSThread()
	defer close(w.done)
	defer unix.Close(w.wake)
	defer unix.Close(w.socket)
	// The slack would be added to every wait, and packets must not wait for a busy
	// host's other work. Best effort: without the privilege it is only less precise.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	_ = realTime()
	buf := make([]byte, 1<<16)
	for {
		w.await()
		if !w.control() {
			return
		}
		w.receive(buf)
		w.release()
	}
}

// await sleeps until a packet comes, one is due, or somebody pokes.
func (w *queue) await() {
	w.mu.Lock()
	due, any := w.sched.next()
	w.mu.Unlock()
	var timeout *unix.Timespec
	if any {
		t := unix.NsecToTimespec(max(0, int64(due-time.Since(w.start))))
		timeout = &t
	}
	_, err := unix.Ppoll([]unix.PollFd{{Fd: int32(w.socket), Events: unix.POLLIN}, {Fd: int32(w.wake), Events: unix.POLLIN}}, timeout, nil)
	if err != nil && !errors.Is(err, unix.EINTR) {
		w.log.Error("poll", "error", err)
	}
}

// control does what others asked for; false means stop.
func (w *queue) control() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dirty {
		_, _ = unix.Read(w.wake, make([]byte, 8))
		w.sched.set(w.want)
		if err := w.configure(w.want); err != nil {
			w.log.Error("configure", "error", err)
		}
		w.dirty = false
	}
	if w.ended {
		if last, any := w.sched.release(math.MaxInt64); any {
			w.verdict(msgVerdictBatch, last, verdictAccept)
		}
		return false
	}
	return true
}

// receive takes what is there, but not so much that due packets wait for it.
func (w *queue) receive(buf []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range 64 {
		n, _, err := unix.Recvfrom(w.socket, buf, 0)
		if err != nil {
			return
		}
		now := time.Since(w.start)
		for b := buf[:n]; len(b) >= 20; {
			size := int(ne.Uint32(b))
			if size < 20 || size > len(b) {
				break
			}
			w.message(now, b[:size])
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

func (w *queue) message(now time.Duration, m []byte) {
	switch ne.Uint16(m[4:]) {
	case unix.NLMSG_ERROR:
		if e := int32(ne.Uint32(m[16:])); e != 0 {
			w.log.Error("netfilter", "error", unix.Errno(-e))
		}
	case unix.NFNL_SUBSYS_QUEUE<<8 | msgPacket:
		id, size := packet(m[20:])
		switch w.sched.arrive(now, id, size) {
		case drop:
			w.verdict(msgVerdict, id, verdictDrop)
		case pass:
			w.verdict(msgVerdict, id, verdictAccept)
		}
	}
}

// packet reads the id and the true length out of a message's attributes.
func packet(a []byte) (id uint32, size int) {
	for len(a) >= 4 {
		l := int(ne.Uint16(a))
		if l < 4 || l > len(a) {
			break
		}
		switch ne.Uint16(a[2:]) & 0x3fff {
		case attrPacketHeader:
			id = be.Uint32(a[4:])
		case attrCapLen:
			size = int(be.Uint32(a[4:]))
		case attrPayload:
			size = max(size, l-4)
		}
		a = a[min((l+3)&^3, len(a)):]
	}
	return id, size
}

func (w *queue) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if last, any := w.sched.release(time.Since(w.start)); any {
		w.verdict(msgVerdictBatch, last, verdictAccept)
	}
}
