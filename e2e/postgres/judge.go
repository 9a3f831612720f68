// Package postgres plays PostgreSQL stretched over three clusters on a slice: one server in each, a quorum of one of
// the two others for every write, and writers that note what was acknowledged. It kills the primary's whole cluster,
// promotes by a script of its own, and counts what was promised and is gone.
package postgres

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// attempt is one line of a writer's log.
type attempt struct {
	acked bool
	id    string
	at    time.Time
}

// readLog reads a writer's log. Its last line may be half, because writers are killed.
func readLog(r io.Reader) ([]attempt, error) {
	var out []attempt
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		f := strings.Fields(line)
		if len(f) < 3 || (f[0] != "ack" && f[0] != "err") {
			return out, fmt.Errorf("writer's log: %q: want ack|err ID MICROSECONDS", strings.TrimSpace(line))
		}
		us, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			return out, fmt.Errorf("writer's log: %q: %w", strings.TrimSpace(line), err)
		}
		out = append(out, attempt{f[0] == "ack", f[1], time.UnixMicro(us)})
	}
}

// lost lists what was acknowledged and is not in the database.
func lost(acked []attempt, present map[string]bool) []string {
	var out []string
	for _, a := range acked {
		if a.acked && !present[a.id] {
			out = append(out, a.id)
		}
	}
	slices.Sort(out)
	return out
}

// firstAck is the first acknowledgement after a time; writes that the dead primary acknowledged before it are none.
func firstAck(all []attempt, after time.Time) (time.Time, bool) {
	var first time.Time
	for _, a := range all {
		if a.acked && a.at.After(after) && (first.IsZero() || a.at.Before(first)) {
			first = a.at
		}
	}
	return first, !first.IsZero()
}

// lsn is a place in the write-ahead log as PostgreSQL writes it: 0/3000148.
type lsn uint64

func parseLSN(s string) (lsn, error) {
	hi, lo, ok := strings.Cut(strings.TrimSpace(s), "/")
	h, err1 := strconv.ParseUint(hi, 16, 32)
	l, err2 := strconv.ParseUint(lo, 16, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("%q is no place in a write-ahead log", s)
	}
	return lsn(h<<32 | l), nil
}

// choose picks the standby to promote: the one that has the most, or, to show that this matters, the least.
func choose(has map[string]lsn, laggard bool) string {
	best := ""
	for name, l := range has {
		b := has[best]
		if best == "" || (!laggard && (l > b || l == b && name < best)) || (laggard && (l < b || l == b && name < best)) {
			best = name
		}
	}
	return best
}

// Stages of a round, each since the fault.
type Stages struct {
	Noticed  time.Duration `json:"noticed"`  // both standbys have lost the primary
	Promoted time.Duration `json:"promoted"` // the chosen one takes writes
	Follows  time.Duration `json:"follows"`  // the other one streams from it, so that there is a quorum
	FirstAck time.Duration `json:"firstAck"` // a writer has its first acknowledgement
}

// Round is what became of one round.
type Round struct {
	Control bool   `json:"control,omitempty"` // asynchronous, and the laggard is promoted
	Killed  string `json:"killed"`
	Chosen  string `json:"chosen"`
	Stages  Stages `json:"stages"`
	Acked   int    `json:"acked"`
	Lost    int    `json:"lost"`
}

// table prints rounds for people; the largest figure of each column is in the last line.
func table(rounds []Round) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-6s %-7s %-7s %9s %9s %9s %9s %7s %5s\n", "round", "killed", "chosen", "noticed", "promoted", "follows", "first-ack", "acked", "lost")
	for i, r := range rounds {
		name := fmt.Sprint(i + 1)
		if r.Control {
			name += "*"
		}
		fmt.Fprintf(&b, "%-6s %-7s %-7s %9d %9d %9d %9d %7d %5d\n", name, r.Killed, r.Chosen, r.Stages.Noticed.Milliseconds(),
			r.Stages.Promoted.Milliseconds(), r.Stages.Follows.Milliseconds(), r.Stages.FirstAck.Milliseconds(), r.Acked, r.Lost)
	}
	if slices.ContainsFunc(rounds, func(r Round) bool { return r.Control }) {
		b.WriteString("* control: asynchronous, and the standby that has least is promoted: must lose\n")
	}
	return b.String()
}
