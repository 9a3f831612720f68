package story

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/yaml"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/e2e/autoscale"
	"seaway.dev/seaway/e2e/stage"
)

func playAutoscale(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) == 0 {
		return "", misused("want what to do, and with what")
	}
	head, with := clauses(args[1:], "in", "until", "after")
	if args[0] == "stage" {
		return p.placeSites(ctx, head, with)
	}
	sites, err := p.sitesIn(with["in"])
	if err != nil {
		return "", err
	}
	what := strings.Join(head, " ")
	switch args[0] {
	case "prometheus":
		return sites[0].Prometheus() + "\n", nil
	case "load":
		rps, err := perSecond(what)
		if err != nil {
			return "", err
		}
		return "", atEach(sites, func(s *autoscale.Site) error { return s.Rate(ctx, rps) })
	case "room":
		pods, err := strconv.Atoi(what)
		if err != nil || pods < 0 {
			return "", misused("room %s: want a number of pods", what)
		}
		return "", atEach(sites, func(s *autoscale.Site) error { return s.Leave(ctx, pods) })
	case "jump":
		return p.jump(ctx, what, sites, with["until"])
	case "teach":
		return "", p.teach(ctx, what, sites)
	}
	return "", misused("%q: want stage, prometheus, load, room, teach or jump", args[0])
}

// sitesIn are the sites in clusters; the only one if none is named.
func (p *play) sitesIn(clusters []string) ([]*autoscale.Site, error) {
	if len(p.sites) == 0 {
		return nil, misused("autoscale stage comes first")
	}
	if len(clusters) == 0 {
		if len(p.sites) > 1 {
			return nil, misused("say in which cluster: the service is staged in %s", strings.Join(slices.Sorted(maps.Keys(p.sites)), ", "))
		}
		return slices.Collect(maps.Values(p.sites)), nil
	}
	var out []*autoscale.Site
	for _, c := range clusters {
		s := p.sites[c]
		if s == nil {
			return nil, misused("the service is not staged in %s, but in %s", c, strings.Join(slices.Sorted(maps.Keys(p.sites)), ", "))
		}
		out = append(out, s)
	}
	return out, nil
}

func atEach(sites []*autoscale.Site, f func(*autoscale.Site) error) error {
	of := map[string]*autoscale.Site{}
	for _, s := range sites {
		of[s.Cluster] = s
	}
	return stage.Each(slices.Collect(maps.Keys(of)), func(c string) error { return f(of[c]) })
}

func perSecond(word string) (float64, error) {
	rps, err := strconv.ParseFloat(word, 64)
	if err != nil || rps < 0 {
		return 0, misused("%s: want requests per second", word)
	}
	return rps, nil
}

// jump lets the load of one site jump, until there or in another cluster more replicas are asked for.
func (p *play) jump(ctx context.Context, what string, sites []*autoscale.Site, until []string) (string, error) {
	rps, err := perSecond(what)
	if err != nil {
		return "", err
	}
	if len(sites) != 1 || len(until) > 1 {
		return "", misused("the load jumps in one cluster, until one scales")
	}
	from, at, label := sites[0], sites[0], "load-to-scale"
	if len(until) == 1 {
		there, err := p.sitesIn(until)
		if err != nil {
			return "", err
		}
		at, label = there[0], fmt.Sprintf("load-of-%s-to-scale-of-%s", from.Cluster, there[0].Cluster)
	}
	j, err := from.Jump(ctx, rps, at, 30*time.Second)
	if err != nil {
		return "", err
	}
	p.measured(Measure{Label: label, Value: round(float64((j.Metric + j.Scale).Milliseconds())), Unit: "ms"})
	p.engine.tell("  load of %s jumped to %g a second: seen by the metric after %s; replicas in %s %d → %d after another %s",
		from.Cluster, rps, j.Metric.Round(time.Millisecond), at.Cluster, j.From, j.To, j.Scale.Round(time.Millisecond))
	return fmt.Sprintf("%d\n", j.Scale.Milliseconds()), nil
}

// teach makes an Autoscaler of a file at each site.
func (p *play) teach(ctx context.Context, file string, sites []*autoscale.Site) error {
	text, err := os.ReadFile(p.paths([]string{file})[0])
	if err != nil {
		return err
	}
	as := &v1alpha1.Autoscaler{}
	if err := yaml.UnmarshalStrict(text, as); err != nil {
		return err
	}
	return atEach(sites, func(s *autoscale.Site) error { return s.Teach(ctx, as.DeepCopy()) })
}

func (p *play) placeSites(ctx context.Context, clusters []string, with map[string][]string) (string, error) {
	if len(clusters) == 0 {
		return "", misused("want at least one cluster")
	}
	after := 2 * time.Second
	if w := with["after"]; len(w) > 0 {
		d, err := time.ParseDuration(strings.Join(w, " "))
		if err != nil {
			return "", misused("after %s: %v", strings.Join(w, " "), err)
		}
		after = d
	}
	p.dirty = true
	image, err := autoscale.Image(ctx, p.stage, clusters...)
	if err != nil {
		return "", err
	}
	var mu sync.Mutex
	err = stage.Each(clusters, func(c string) error {
		site, err := autoscale.Place(ctx, p.stage, image, c, after, nil)
		if err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
		mu.Lock()
		defer mu.Unlock()
		p.sites[c] = site
		return nil
	})
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, c := range clusters {
		fmt.Fprintln(&out, p.sites[c].Prometheus())
	}
	return out.String(), nil
}
