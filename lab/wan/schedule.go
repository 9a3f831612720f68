package wan

import (
	"math/rand/v2"
	"time"
)

// held is a packet that waits in the kernel for its verdict.
type held struct {
	id  uint32
	due time.Duration
}

// schedule decides what becomes of each packet of one queue. Times are since an
// arbitrary start. It does no input or output, so it can be tested as it is.
type schedule struct {
	quality Quality
	rand    *rand.Rand
	// line is when the sender's interface has sent all that came so far.
	line time.Duration
	// last is when the last packet that kept its place is due.
	last  time.Duration
	queue []held
	head  int
	stats Stats
}

// Stats of one queue.
type Stats struct {
	Packets   uint64 `json:"packets"`
	Bytes     uint64 `json:"bytes"`
	Lost      uint64 `json:"lost"`
	Overflow  uint64 `json:"overflow"`
	Reordered uint64 `json:"reordered"`
	Held      int    `json:"held"`
}

type fate int

const (
	hold fate = iota
	pass
	drop
)

// How much may wait for a slow line: this long, or this many full packets.
const (
	bufferTime    = 100 * time.Millisecond
	bufferPackets = 32
	frameOverhead = 14
)

// arrive takes a packet of n bytes.
func (s *schedule) arrive(now time.Duration, id uint32, n int) fate {
	q := &s.quality
	s.stats.Packets++
	s.stats.Bytes += uint64(n)
	if q.Loss > 0 && s.rand.Float64() < q.Loss {
		s.stats.Lost++
		return drop
	}
	sent := now
	if q.Rate > 0 {
		limit := max(bufferTime, time.Duration(bufferPackets*1514*8*int64(time.Second)/q.Rate))
		if s.line-now > limit {
			s.stats.Overflow++
			return drop
		}
		s.line = max(s.line, now) + time.Duration(int64(n+frameOverhead)*8*int64(time.Second)/q.Rate)
		sent = s.line
	}
	if q.Reorder > 0 && q.Rate == 0 && s.rand.Float64() < q.Reorder {
		s.stats.Reordered++
		return pass
	}
	due := sent + q.Delay
	if q.Jitter > 0 {
		due += time.Duration(s.rand.Int64N(int64(2*q.Jitter)+1)) - q.Jitter
	}
	// Never before the one in front: a path's jitter does not reorder.
	due = max(due, s.last)
	if due <= now && s.head == len(s.queue) {
		return pass
	}
	s.last = due
	s.queue = append(s.queue, held{id, due})
	return hold
}

// release takes out what is due and returns the last of it: as the queue is in
// order, one verdict on that id is a verdict on all up to it.
func (s *schedule) release(now time.Duration) (last uint32, any bool) {
	for s.head < len(s.queue) && s.queue[s.head].due <= now {
		last, any = s.queue[s.head].id, true
		s.head++
	}
	if s.head == len(s.queue) {
		s.queue, s.head = s.queue[:0], 0
	} else if s.head > 4096 && s.head > len(s.queue)/2 {
		s.queue = s.queue[:copy(s.queue, s.queue[s.head:])]
		s.head = 0
	}
	s.stats.Held = len(s.queue) - s.head
	return last, any
}

// next says when the next packet is due.
func (s *schedule) next() (time.Duration, bool) {
	if s.head == len(s.queue) {
		return 0, false
	}
	return s.queue[s.head].due, true
}

// set changes the quality; what is held already keeps its time.
func (s *schedule) set(q Quality) {
	s.quality = q
	if q.Rate == 0 {
		s.line = 0
	}
}
