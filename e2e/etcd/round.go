package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"seaway.dev/seaway/e2e/stage"
)

const (
	hold    = 4 * time.Second  // how long a fault stays
	calm    = 1 * time.Second  // after the fault was undone
	thought = 90 * time.Second // for the check of the history
)

// Round is what one fault at one member did.
type Round struct {
	Fault  string        `json:"fault"`
	Member string        `json:"member"`
	Leader bool          `json:"leader"` // it led
	Gap    time.Duration `json:"gap"`    // longest time without a finished write in the other clusters
}

// fault is something that happens to the machine or the cluster of a member.
type fault struct {
	name     string
	do, undo func(cluster string) []string // words for the lab
}

var faults = []fault{
	{name: "kill",
		do:   func(c string) []string { return []string{"machine", "kill", c + "n1"} },
		undo: func(c string) []string { return []string{"machine", "start", "--wait", c + "n1"} }},
	{name: "pause",
		do:   func(c string) []string { return []string{"machine", "pause", c + "n1"} },
		undo: func(c string) []string { return []string{"machine", "resume", c + "n1"} }},
	{name: "cut",
		do:   func(c string) []string { return []string{"wan", "cut", c, "all"} },
		undo: func(c string) []string { return []string{"wan", "heal", c, "all"} }},
}

// Play plays rounds: each kind of fault in turn, first three at the leader, then three at a follower, and so on.
func (c *Cluster) Play(ctx context.Context, rounds int) ([]Round, error) {
	var out []Round
	for i := range rounds {
		r, err := c.round(ctx, faults[i%len(faults)], (i/len(faults))%2 == 0)
		if err != nil {
			return out, fmt.Errorf("round %d: %w", i+1, err)
		}
		out = append(out, r)
		c.tell("  round %d: %s of %s%s: longest gap between writes %d ms", i+1, r.Fault, r.Member, led(r), r.Gap.Milliseconds())
	}
	return out, c.judge()
}

func led(r Round) string {
	if r.Leader {
		return " (leader)"
	}
	return ""
}

// round: a fault at a member, undone after a while whatever happens.
func (c *Cluster) round(ctx context.Context, f fault, atLeader bool) (r Round, err error) {
	leader, err := c.leader(ctx)
	if err != nil {
		return r, err
	}
	victim := leader
	if !atLeader {
		victim = c.clusters[(slices.Index(c.clusters, leader)+1)%len(c.clusters)]
	}
	r = Round{Fault: f.name, Member: victim, Leader: victim == leader}
	begin := time.Now()
	_, err = c.stage.Labctl(ctx, f.do(victim)...)
	defer func() {
		_, undone := c.stage.Labctl(context.WithoutCancel(ctx), f.undo(victim)...)
		err = errors.Join(err, undone)
		if err == nil {
			err = c.working(ctx)
		}
	}()
	if err != nil {
		return r, err
	}
	end := begin.Add(hold)
	if err := c.until(ctx, end.Add(calm)); err != nil {
		return r, err
	}
	var others []operation
	for _, n := range c.clusters {
		if n != victim {
			others = append(others, c.history[n]...)
		}
	}
	r.Gap = writeGap(others, begin, end)
	return r, nil
}

// until lets the clients go on until a moment, and reads what they did.
func (c *Cluster) until(ctx context.Context, end time.Time) error {
	return stage.Await(ctx, time.Minute, func() error {
		if time.Now().Before(end) {
			return errors.New("not yet")
		}
		return c.read()
	})
}

// judge checks the whole history, and that the check can tell: reads that ask only one member are stale at times, and
// a history with them must not pass.
func (c *Cluster) judge() error {
	if err := c.read(); err != nil {
		return err
	}
	var honest, all []operation
	for name, ops := range c.history {
		all = append(all, ops...)
		if !strings.HasSuffix(name, "-stale") {
			honest = append(honest, ops...)
		}
	}
	begin := time.Now()
	if v := check(honest, thought); v != linearizable {
		return fmt.Errorf("a history of %d operations is %s", len(honest), v)
	}
	c.tell("  %d operations: linearizable (checked in %.1f s)", len(honest), time.Since(begin).Seconds())
	if v := check(all, thought); v != notLinearizable {
		return fmt.Errorf("the control, %d operations with stale reads among them, is %s: the check would not see a fault", len(all), v)
	}
	c.tell("  with the stale reads among them, %d operations: not linearizable, as it must be", len(all))
	return nil
}

// Table prints rounds for people.
func Table(rounds []Round) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-6s %-6s %-7s %-7s %8s\n", "round", "fault", "member", "leader", "gap-ms")
	for i, r := range rounds {
		fmt.Fprintf(&b, "%-6d %-6s %-7s %-7v %8d\n", i+1, r.Fault, r.Member, r.Leader, r.Gap.Milliseconds())
	}
	return b.String()
}
