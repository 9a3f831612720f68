package story

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"sigs.k8s.io/yaml"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/e2e/autoscale"
)

func playAutoscale(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) < 2 {
		return "", misused("want what to do, and with what")
	}
	if args[0] == "stage" {
		return p.placeSite(ctx, args[1:])
	}
	if p.site == nil {
		return "", misused("autoscale stage comes first")
	}
	switch args[0] {
	case "load", "jump":
		rps, err := strconv.ParseFloat(args[1], 64)
		if err != nil || rps < 0 {
			return "", misused("%s: want requests per second", args[1])
		}
		if args[0] == "load" {
			return "", p.site.Rate(ctx, rps)
		}
		j, err := p.site.Jump(ctx, rps, 30*time.Second)
		if err != nil {
			return "", err
		}
		p.measured(Measure{Label: "load-to-scale", Value: round(float64((j.Metric + j.Scale).Milliseconds())), Unit: "ms"})
		p.engine.tell("  load jumped to %g a second: seen by the metric after %s; replicas %d → %d after another %s", rps, j.Metric.Round(time.Millisecond), j.From, j.To, j.Scale.Round(time.Millisecond))
		return fmt.Sprintf("%d\n", j.Scale.Milliseconds()), nil
	case "teach":
		text, err := os.ReadFile(p.paths(args[1:2])[0])
		if err != nil {
			return "", err
		}
		as := &v1alpha1.Autoscaler{}
		if err := yaml.UnmarshalStrict(text, as); err != nil {
			return "", err
		}
		return "", p.site.Teach(ctx, as)
	}
	return "", misused("%q: want stage, load, teach or jump", args[0])
}

func (p *play) placeSite(ctx context.Context, args []string) (string, error) {
	head, with := clauses(args, "after")
	if len(head) != 1 {
		return "", misused("want one cluster")
	}
	after := 2 * time.Second
	if w := with["after"]; len(w) == 1 {
		d, err := time.ParseDuration(w[0])
		if err != nil {
			return "", misused("after %s: %v", w[0], err)
		}
		after = d
	}
	p.dirty = true
	site, err := autoscale.Place(ctx, p.stage, head[0], after, nil)
	if err != nil {
		return "", err
	}
	p.site = site
	return site.Prometheus() + "\n", nil
}
