package controller

import (
	"bytes"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"seaway.dev/seaway/fleet"
)

// TestTheBoardIsFreeWhileALedgerIsWritten: whoever writes a ledger down publishes on the board with the ledgers' lock
// held, so nobody may wait for that lock with the board's held, or the leader freezes.
func TestTheBoardIsFreeWhileALedgerIsWritten(t *testing.T) {
	b := newBoard("c1", "test")
	l := &leader{board: b, ledgers: newLedgers(nil, "seaway-system", time.Hour, b, slog.New(slog.DiscardHandler))}
	l.ledgers.mu.Lock() // as the writer does
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.noteDiscovery(nil, true, []fleet.Service{{Namespace: "shop", Name: "web", Slice: "shop"}}, true, false)
	}()
	stacks := make([]byte, 1<<20)
	for !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("(*ledgers).use")) {
		runtime.Gosched() // until it waits for the ledgers
	}
	if b.mu.TryLock() {
		b.mu.Unlock()
	} else {
		t.Error("the board is held by somebody who waits for the ledgers")
	}
	l.ledgers.mu.Unlock()
	<-done
	if f := b.snapshot(); len(f.Services) != 1 {
		t.Error("what discovery said did not reach the board")
	}
}
