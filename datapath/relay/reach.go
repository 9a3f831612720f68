package relay

import (
	"sync"
	"time"

	"seaway.dev/seaway/fleet"
)

// board publishes what was measured of the other nodes.
type board struct {
	mu    sync.Mutex
	rev   uint64 // begins at the time of the process's start, so that it differs from those before
	reach []fleet.Reach
	news  chan struct{} // closed when rev changes
}

func newBoard() *board {
	return &board{rev: uint64(time.Now().UnixNano()), reach: []fleet.Reach{}, news: make(chan struct{})}
}

// put publishes a new list, which nobody changes any more.
func (b *board) put(reach []fleet.Reach) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rev++
	b.reach = reach
	close(b.news)
	b.news = make(chan struct{})
}

// Reach returns what was measured of the other nodes, sorted, its revision, and a channel that is closed when there is
// a newer one. Nobody changes what it returned.
func (sw *Switch) Reach() (rev uint64, reach []fleet.Reach, news <-chan struct{}) {
	sw.board.mu.Lock()
	defer sw.board.mu.Unlock()
	return sw.board.rev, sw.board.reach, sw.board.news
}
