package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"seaway.dev/seaway/e2e/stage"
)

const (
	glance   = 20 * time.Millisecond // between two looks at a server in a disaster
	disaster = 60 * time.Second      // until writes must be acknowledged again
	warm     = 200                   // writes before the fault
	behind   = 60                    // writes that the control's laggard misses
)

// Play plays rounds of the promise, and after them as many controls as asked. It returns what it has, also when a
// round fails.
func (c *Cluster) Play(ctx context.Context, rounds, controls int) ([]Round, error) {
	var out []Round
	for i := range rounds + controls {
		r, err := c.round(ctx, i >= rounds)
		if err != nil {
			return out, fmt.Errorf("round %d: %w", i+1, err)
		}
		out = append(out, r.Round)
		c.tell("  round %d: %s killed, %s promoted; first acknowledgement after %d ms; %d acknowledged, %d lost", i+1, r.Killed, r.Chosen,
			r.Stages.FirstAck.Milliseconds(), r.Acked, r.Lost)
		if i+1 == rounds+controls {
			break // whoever mends the lab switches the machines on
		}
		begin := time.Now()
		if err := c.heal(ctx, r.dead, r.primary); err != nil {
			return out, fmt.Errorf("after round %d: %w", i+1, err)
		}
		c.tell("  %6.1fs %s rebuilt", time.Since(begin).Seconds(), r.Killed)
	}
	return out, Verdict(out)
}

// Verdict holds what was promised against what came: nothing that was acknowledged is lost, and the controls lose.
func Verdict(rounds []Round) error {
	var errs []error
	for i, r := range rounds {
		switch {
		case r.Control && r.Lost == 0:
			errs = append(errs, fmt.Errorf("round %d, a control, lost nothing: the count would not see a loss", i+1))
		case !r.Control && r.Lost > 0:
			errs = append(errs, fmt.Errorf("round %d lost %d acknowledged writes", i+1, r.Lost))
		}
	}
	if len(errs) > 0 {
		errs = append(errs, errors.New(table(rounds)))
	}
	return errors.Join(errs...)
}

// Table prints rounds for people.
func Table(rounds []Round) string { return table(rounds) }

// played is a round and whom it concerned.
type played struct {
	Round
	dead, primary *site
}

// round: load, kill the primary's cluster, promote, count.
func (c *Cluster) round(ctx context.Context, control bool) (played, error) {
	primary, err := c.primary(ctx)
	if err != nil {
		return played{}, err
	}
	r := played{Round: Round{Killed: primary.cluster, Control: control}, dead: primary}
	rest := c.others(primary)
	if err := c.synchronous(ctx, !control); err != nil {
		return r, err
	}
	begun := time.Now()
	if err := c.acknowledged(ctx, begun, warm); err != nil {
		return r, fmt.Errorf("before the fault: %w", err)
	}
	laggard := rest[len(rest)-1]
	if control {
		if _, err := c.stage.Labctl(ctx, "wan", "cut", laggard.cluster, "all"); err != nil {
			return r, err
		}
		if err := c.acknowledged(ctx, time.Now(), behind); err != nil {
			return r, fmt.Errorf("with %s cut off: %w", laggard.cluster, err)
		}
	}
	if r.primary, err = c.failover(ctx, &r.Round, primary, rest); err != nil {
		return r, err
	}
	r.Acked, r.Lost, err = c.count(ctx, begun, r.primary)
	return r, err
}

// failover is the story's own operator. The clock starts before the power goes.
func (c *Cluster) failover(ctx context.Context, r *Round, primary *site, rest []*site) (*site, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, disaster, fmt.Errorf("no write was acknowledged within %s of the fault", disaster))
	defer cancel()
	machines, err := c.machines(ctx, primary.cluster)
	if err != nil {
		return nil, err
	}
	fault := time.Now()
	if _, err := c.stage.Labctl(ctx, append([]string{"machine", "kill"}, machines...)...); err != nil {
		return nil, err
	}
	primary.close()
	if r.Control {
		if _, err := c.stage.Labctl(ctx, "wan", "heal", rest[len(rest)-1].cluster, "all"); err != nil {
			return nil, err
		}
	}
	err = await(ctx, func() (bool, error) { return c.orphaned(ctx, rest) })
	if err != nil {
		return nil, fmt.Errorf("the standbys still believe in their primary: %w", err)
	}
	r.Stages.Noticed = time.Since(fault)
	chosen, other, err := c.elect(ctx, rest, r.Control)
	if err != nil {
		return nil, err
	}
	r.Chosen = chosen.cluster
	before := time.Now()
	if out, err := chosen.ask(ctx, "select pg_promote(true, 20)"); err != nil || out != "t" {
		return nil, fmt.Errorf("promote %s: %q %w", chosen.cluster, out, err)
	}
	r.Stages.Promoted = time.Since(fault)
	if !r.Control { // the control's other standby has more than the primary and cannot follow it
		if err := other.follow(ctx, chosen.cluster); err != nil {
			return nil, err
		}
		err = await(ctx, func() (bool, error) { return other.streams(ctx) })
		if err != nil {
			return nil, fmt.Errorf("%s does not follow %s: %w", other.cluster, chosen.cluster, err)
		}
		r.Stages.Follows = time.Since(fault)
	}
	err = await(ctx, func() (bool, error) {
		all, err := c.attempts(before)
		at, ok := firstAck(all, before)
		r.Stages.FirstAck = at.Sub(fault)
		return ok, err
	})
	return chosen, err
}

// orphaned tells whether none of the standbys receives anything any more.
func (c *Cluster) orphaned(ctx context.Context, standbys []*site) (bool, error) {
	for _, s := range standbys {
		if ok, err := s.streams(ctx); ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// elect compares what the standbys have.
func (c *Cluster) elect(ctx context.Context, standbys []*site, laggard bool) (chosen, other *site, err error) {
	has := map[string]lsn{}
	for _, s := range standbys {
		out, err := s.ask(ctx, "select coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())")
		if err != nil {
			return nil, nil, err
		}
		if has[s.cluster], err = parseLSN(out); err != nil {
			return nil, nil, err
		}
	}
	name := choose(has, laggard)
	for _, s := range standbys {
		if s.cluster == name {
			chosen = s
		} else {
			other = s
		}
	}
	return chosen, other, nil
}

// count compares the writers' logs since a time with the table of the new primary.
func (c *Cluster) count(ctx context.Context, since time.Time, primary *site) (acked, gone int, err error) {
	all, err := c.attempts(since)
	if err != nil {
		return 0, 0, err
	}
	// Asked for after the logs were read: an acknowledgement in them is older than this answer.
	out, err := primary.ask(ctx, "select id from promised")
	if err != nil {
		return 0, 0, err
	}
	present := map[string]bool{}
	for id := range strings.FieldsSeq(out) {
		present[id] = true
	}
	for _, a := range all {
		if a.acked {
			acked++
		}
	}
	return acked, len(lost(all, present)), nil
}

// heal switches the dead cluster on and makes all servers standbys of the new primary. Then it waits until all reach the one
// that was dead: a node that falls again and again is trusted later each time, and each round is to begin with all well.
func (c *Cluster) heal(ctx context.Context, dead, primary *site) error {
	machines, err := c.machines(ctx, dead.cluster)
	if err != nil {
		return err
	}
	if _, err := c.stage.Labctl(ctx, append([]string{"machine", "start", "--wait"}, machines...)...); err != nil {
		return err
	}
	if err := c.restore(ctx, primary); err != nil {
		return fmt.Errorf("after the round: %w", err)
	}
	return c.each(func(s *site) error {
		return stage.Await(ctx, time.Minute, func() error {
			_, err := s.run(ctx, "psql", conninfo(dead.cluster, s.cluster)+" dbname=postgres", "-Atqc", "select 1")
			return err
		})
	})
}

// machines of a cluster, its control plane first.
func (c *Cluster) machines(ctx context.Context, cluster string) ([]string, error) {
	l, err := c.stage.Layout(ctx)
	if err != nil {
		return nil, err
	}
	cl, err := l.Cluster(cluster)
	return append([]string{cl.Control}, cl.Nodes...), err
}

func (c *Cluster) primary(ctx context.Context) (*site, error) {
	for _, s := range c.sites {
		if out, err := s.ask(ctx, "select pg_is_in_recovery()"); err != nil {
			return nil, err
		} else if out == "f" {
			return s, nil
		}
	}
	return nil, errors.New("no server is the primary")
}

func (c *Cluster) others(primary *site) []*site {
	var out []*site
	for _, s := range c.sites {
		if s != primary {
			out = append(out, s)
		}
	}
	return out
}

// synchronous turns the quorum on or off, on all servers: any of them may be the next primary.
func (c *Cluster) synchronous(ctx context.Context, on bool) error {
	names := ""
	if on {
		names = quorum
	}
	return c.each(func(s *site) error {
		if _, err := s.ask(ctx, "alter system set synchronous_standby_names = "+quote(names)); err != nil {
			return err
		}
		_, err := s.ask(ctx, "select pg_reload_conf()")
		return err
	})
}

// acknowledged waits until the writers have so many acknowledgements since a time.
func (c *Cluster) acknowledged(ctx context.Context, since time.Time, want int) error {
	got := 0
	return stage.Await(ctx, disaster, func() error {
		all, err := c.attempts(since)
		if err != nil {
			return err
		}
		got = 0
		for _, a := range all {
			if a.acked {
				got++
			}
		}
		if got < want {
			return fmt.Errorf("%d writes were acknowledged, and %d were to be", got, want)
		}
		return nil
	})
}

// await looks every glance.
func await(ctx context.Context, f func() (bool, error)) error {
	return stage.Eventually(ctx, glance, func() error {
		ok, err := f()
		if err == nil && !ok {
			err = errors.New("not yet")
		}
		return err
	})
}
