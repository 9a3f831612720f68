package story

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"seaway.dev/seaway/e2e/stage"
)

// A probe is one packet from one pod. Where it may arrive follows from its kind:
//
//	kind      source                        destination                     may arrive
//	own       the sender's                  a pod of its own slice          there, and must
//	across    the sender's                  a pod's address on another      nowhere in that slice
//	                                        slice
//	cni       the sender's                  a pod's address by the CNI      nowhere
//	forged    another pod's of the slice    a pod of its own slice          nowhere
//	stranger  outside the slice             a pod of its own slice          nowhere
//	posing    another slice's pod's         that slice's pod                nowhere in that slice
//
// Slices may share addresses, so a probe `across` can find a pod of the sender's own slice at that address. What counts
// is which pod saw it: the mark in its payload says who sent it and why, and the receiver's packet socket sees it even
// if no program would have got it.
type target struct {
	pod   stage.Pod
	slice string // the namespace stands for the slice: a story puts one namespace on one slice
	addrs []string
}

type shot struct {
	kind, src, dst string
	from, to       int // indices of targets
}

var kinds = []string{"own", "across", "cni", "forged", "stranger", "posing"}

// strangers are sources that belong to nobody on a slice of the stories.
var strangers = map[bool]string{false: "198.51.100.7", true: "2001:db8::7"} // by: is it IPv6

// planShots makes all probes between targets; it is pure, so that a test can count them.
func planShots(ts []target) []shot {
	var out []shot
	for i, a := range ts {
		for j, b := range ts {
			if i == j {
				continue
			}
			for _, src := range a.addrs {
				out = append(out, shotsBetween(ts, i, j, src, b)...)
			}
			if len(a.addrs) > 0 && b.pod.IP != "" && !strings.Contains(b.pod.IP, ":") && !strings.Contains(a.addrs[0], ":") {
				out = append(out, shot{"cni", a.addrs[0], b.pod.IP, i, j})
			}
		}
	}
	return out
}

func shotsBetween(ts []target, i, j int, src string, b target) []shot {
	var out []shot
	six := strings.Contains(src, ":")
	for _, dst := range b.addrs {
		if strings.Contains(dst, ":") != six {
			continue
		}
		if ts[i].slice != b.slice {
			out = append(out, shot{"across", src, dst, i, j})
			if other := someone(ts, b.slice, j, -1, six); other != "" && other != src {
				out = append(out, shot{"posing", other, dst, i, j})
			}
			continue
		}
		out = append(out, shot{"own", src, dst, i, j}, shot{"stranger", strangers[six], dst, i, j})
		if other := someone(ts, b.slice, j, i, six); other != "" {
			out = append(out, shot{"forged", other, dst, i, j})
		}
	}
	return out
}

// someone is an address on a slice of a pod other than these two.
func someone(ts []target, slice string, not, nor int, six bool) string {
	for k, t := range ts {
		if t.slice != slice || k == not || k == nor {
			continue
		}
		for _, a := range t.addrs {
			if strings.Contains(a, ":") == six {
				return a
			}
		}
	}
	return ""
}

// mark tells a probe from all others; round keeps the marks of one run apart from those of another.
func (s shot) mark(round string) string {
	return fmt.Sprintf("%s.%s.%d.%d", round, s.kind, s.from, s.to)
}

func probes(p *play, ctx context.Context, args []string) (string, error) {
	names, where := clauses(args, "in")
	if len(names) == 0 || len(where["in"]) == 0 {
		return "", misused("want namespaces and clusters")
	}
	ts, err := p.targets(ctx, names, where["in"])
	if err != nil {
		return "", err
	}
	shots := planShots(ts)
	round := fmt.Sprintf("%x", time.Now().UnixNano())
	if err := p.fire(ctx, ts, shots, round); err != nil {
		return "", err
	}
	var seen []map[string]bool
	var verdict tally
	// The true probes left last, on the same ways: when all of them have arrived, the others have had their chance.
	err = stage.Await(ctx, 15*time.Second, func() error {
		if seen, err = p.seen(ctx, ts); err != nil {
			return err
		}
		verdict = count(ts, shots, seen, round)
		return verdict.missing()
	})
	if err != nil {
		return verdict.String(), fmt.Errorf("%w\n%s", err, verdict)
	}
	return verdict.String(), verdict.breach()
}

func (p *play) targets(ctx context.Context, namespaces, clusters []string) ([]target, error) {
	var ts []target
	for _, c := range clusters {
		for _, ns := range namespaces {
			pods, err := p.stage.Pods(ctx, c, ns)
			if err != nil {
				return nil, err
			}
			for _, pod := range pods {
				if pod.Leaving || pod.HostNetwork || pod.Phase != "Running" {
					continue
				}
				out, err := p.stage.InPod(ctx, c, ns, pod.Name, "addrs")
				if err != nil {
					return nil, err
				}
				ts = append(ts, target{pod, ns, strings.Fields(out)})
			}
		}
	}
	if len(ts) < 2 {
		return nil, fmt.Errorf("%d pods are too few to probe anything", len(ts))
	}
	return ts, nil
}

// fire lets every pod shoot, first what must not arrive and then what must. Each probe is sent twice: one lost packet
// is no proof of anything.
func (p *play) fire(ctx context.Context, ts []target, shots []shot, round string) error {
	for i, t := range ts {
		var list strings.Builder
		for _, own := range []bool{false, false, true, true} {
			for _, s := range shots {
				if s.from == i && (s.kind == "own") == own {
					fmt.Fprintf(&list, "%s %s %s\n", s.src, s.dst, s.mark(round))
				}
			}
		}
		errand := stage.Errand{Cluster: t.pod.Cluster, Namespace: t.pod.Namespace, Pod: t.pod.Name, Args: []string{"shoot", "-"}, Stdin: strings.NewReader(list.String())}
		if _, err := p.stage.Ask(ctx, errand); err != nil {
			return fmt.Errorf("probes from %s/%s in %s: %w", t.pod.Namespace, t.pod.Name, t.pod.Cluster, err)
		}
	}
	return nil
}

func (p *play) seen(ctx context.Context, ts []target) ([]map[string]bool, error) {
	all := make([]map[string]bool, len(ts))
	for i, t := range ts {
		out, err := p.stage.InPod(ctx, t.pod.Cluster, t.pod.Namespace, t.pod.Name, "seen")
		if err != nil {
			return nil, err
		}
		all[i] = map[string]bool{}
		for _, m := range strings.Fields(out) {
			all[i][m] = true
		}
	}
	return all, nil
}

// tally is what became of the probes.
type tally struct {
	sent, arrived map[string]int
	lost          []string // of those that must arrive
	breaches      []string
}

// count judges. A probe that is seen where it must not be is a breach, whoever it was addressed to.
func count(ts []target, shots []shot, seen []map[string]bool, round string) tally {
	t := tally{sent: map[string]int{}, arrived: map[string]int{}}
	for _, s := range shots {
		t.sent[s.kind]++
		mark := s.mark(round)
		if s.kind == "own" && !seen[s.to][mark] {
			t.lost = append(t.lost, describe(ts, s, s.to))
		}
		for at := range ts {
			if !seen[at][mark] {
				continue
			}
			t.arrived[s.kind]++
			if !allowed(ts, s, at) {
				t.breaches = append(t.breaches, describe(ts, s, at))
			}
		}
	}
	slices.Sort(t.breaches)
	t.breaches = slices.Compact(t.breaches)
	return t
}

func allowed(ts []target, s shot, at int) bool {
	switch s.kind {
	case "own":
		return at == s.to
	case "across":
		return ts[at].slice == ts[s.from].slice // the same address in the sender's own slice
	}
	return false
}

func describe(ts []target, s shot, at int) string {
	name := func(i int) string { return ts[i].pod.Cluster + "/" + ts[i].pod.Namespace + "/" + ts[i].pod.Name }
	return fmt.Sprintf("%s: from %s as %s to %s (%s), at %s", s.kind, name(s.from), s.src, s.dst, name(s.to), name(at))
}

// String is a table.
func (t tally) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-9s %5s %8s\n", "probe", "sent", "arrived")
	for _, k := range kinds {
		fmt.Fprintf(&b, "%-9s %5d %8d\n", k, t.sent[k], t.arrived[k])
	}
	fmt.Fprintf(&b, "breaches=%d\n", len(t.breaches))
	return b.String()
}

func (t tally) missing() error {
	if len(t.lost) > 0 {
		return fmt.Errorf("%d true probes did not arrive, so nothing is proven by those that did not:\n%s", len(t.lost), some(t.lost))
	}
	return nil
}

func (t tally) breach() error {
	if len(t.breaches) > 0 {
		return fmt.Errorf("%d breaches:\n%s", len(t.breaches), some(t.breaches))
	}
	return nil
}

func some(list []string) string {
	if len(list) > 20 {
		list = append(list[:20:20], fmt.Sprintf("… and %d more", len(list)-20))
	}
	return strings.Join(list, "\n")
}
