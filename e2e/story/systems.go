package story

import (
	"context"
	"strconv"
	"strings"
	"time"

	"seaway.dev/seaway/drill/figures"
	"seaway.dev/seaway/e2e/chaos"
	"seaway.dev/seaway/e2e/etcd"
	"seaway.dev/seaway/e2e/postgres"
)

// counts reads `rounds 2 controls 1`; what is not said is 0.
func counts(with map[string][]string) (map[string]int, error) {
	out := map[string]int{}
	for k, v := range with {
		n, err := strconv.Atoi(strings.Join(v, " "))
		if err != nil || n < 0 {
			return nil, misused("%s %s: want a number", k, strings.Join(v, " "))
		}
		out[k] = n
	}
	return out, nil
}

// summed notes p50, p99 and the largest of what many rounds took.
func (p *play) summed(label string, list []time.Duration) {
	s := figures.Of(list)
	for _, m := range []struct {
		q string
		d time.Duration
	}{{"p50", s.P50}, {"p99", s.P99}, {"max", s.Max}} {
		p.measured(Measure{Label: label + " " + m.q, Value: round(float64(m.d.Microseconds()) / 1000), Unit: "ms"})
	}
}

func playPostgres(p *play, ctx context.Context, args []string) (string, error) {
	head, with := clauses(args, "rounds", "controls")
	n, err := counts(with)
	if err != nil || len(head) > 0 {
		return "", misused("want rounds and controls (%v)", err)
	}
	p.dirty = true
	c, err := postgres.New(ctx, p.stage, []string{"c1", "c2", "c3"}, p.engine.tell)
	if c != nil {
		defer c.Close()
	}
	if err != nil {
		return "", err
	}
	rounds, err := c.Play(ctx, n["rounds"], n["controls"])
	by := map[string][]time.Duration{}
	for _, r := range rounds {
		p.records = append(p.records, r)
		if !r.Control {
			by["noticed"] = append(by["noticed"], r.Stages.Noticed)
			by["promoted"] = append(by["promoted"], r.Stages.Promoted)
			by["follows"] = append(by["follows"], r.Stages.Follows)
			by["first-ack"] = append(by["first-ack"], r.Stages.FirstAck)
		}
	}
	for _, stage := range []string{"noticed", "promoted", "follows", "first-ack"} {
		if len(by[stage]) > 0 {
			p.summed("fault-to-"+stage, by[stage])
		}
	}
	return postgres.Table(rounds), err
}

func playEtcd(p *play, ctx context.Context, args []string) (string, error) {
	head, with := clauses(args, "rounds")
	n, err := counts(with)
	if err != nil || len(head) > 0 {
		return "", misused("want rounds (%v)", err)
	}
	p.dirty = true
	c, err := etcd.New(ctx, p.stage, []string{"c1", "c2", "c3"}, p.engine.tell)
	if c != nil {
		defer c.Close()
	}
	if err != nil {
		return "", err
	}
	rounds, err := c.Play(ctx, n["rounds"])
	by := map[string][]time.Duration{}
	for _, r := range rounds {
		p.records = append(p.records, r)
		at := "follower"
		if r.Leader {
			at = "leader"
		}
		by[at] = append(by[at], r.Gap)
	}
	for _, at := range []string{"leader", "follower"} {
		if len(by[at]) > 0 {
			p.summed("write-gap-fault-at-"+at, by[at])
		}
	}
	p.measured(Measure{Label: "election-timeout", Value: float64(etcd.Election.Milliseconds()), Unit: "ms"})
	return etcd.Table(rounds), err
}

func playChaos(p *play, ctx context.Context, args []string) (string, error) {
	names, with := clauses(args, "runs", "hold")
	var hold time.Duration
	if h, said := with["hold"]; said {
		var err error
		if hold, err = time.ParseDuration(strings.Join(h, " ")); err != nil {
			return "", misused("hold: %v", err)
		}
		delete(with, "hold")
	}
	n, err := counts(with)
	if err != nil || len(names) == 0 {
		return "", misused("want faults, and runs (%v)", err)
	}
	faults, err := chaos.Find(strings.Split(strings.Join(names, ","), ","))
	if err != nil {
		return "", misused("%v", err)
	}
	for i, f := range faults {
		faults[i] = f.Holding(hold)
	}
	player := &chaos.Player{Stage: p.stage, Do: p.do, Tell: p.engine.tell, Slack: p.engine.Slack}
	if p.engine.Book != "" {
		if player.Book, err = chaos.OpenBook(p.engine.Book, p.engine.Commit); err != nil {
			return "", err
		}
	}
	p.dirty = true
	defer player.End()
	if err := player.Begin(ctx); err != nil {
		return "", err
	}
	var out strings.Builder
	err = player.Play(ctx, faults, max(n["runs"], 1), func(r chaos.Report) {
		p.records = append(p.records, r)
		p.engine.tell("%s", r)
		out.WriteString(r.String())
	})
	return out.String(), err
}
