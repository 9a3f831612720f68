package story

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"seaway.dev/seaway/e2e/stage"
	"seaway.dev/seaway/e2e/wire"
)

// verbs is the whole language besides testscript's own (env, cmp, grep, exec, skip, stop …).
func verbs() map[string]verb {
	return map[string]verb{
		"fleet": {usage: "fleet MEMBER…", run: fleetUp,
			does: "The lab is up, the hub installed and these members joined; what is missing is made."},
		"bare": {usage: "bare", run: bare,
			does: "The lab is up, and Seaway is installed nowhere."},
		"namespace": {usage: "namespace NAME… in CLUSTER…", run: namespace,
			does: "Make namespaces. They are removed when the story ends."},
		"app": {usage: "app NAMESPACE/NAME in CLUSTER… [replicas N] [node MACHINE,…] [kind stateful]", run: app,
			does: "Run a Deployment of the probe with a Service (HTTP 8080; TCP and UDP 7001), and wait until it is Ready."},
		"pod": {usage: "pod NAMESPACE/NAME in CLUSTER… [node MACHINE,…] [network host]", run: pod,
			does: "Run a single pod of the probe, and wait until it is Ready."},
		"in": {usage: "in CLUSTER[,CLUSTER…] seaway|kubectl ARGS…", run: in,
			does: "Run Seaway's command, or kubectl, on each of these clusters."},
		"on": {usage: "on MACHINE[,MACHINE…] COMMAND…", run: on,
			does: "Run a command on all of these machines at once."},
		"from": {usage: "from CLUSTER/NAMESPACE/POD[,…] get|ask|dig|query|names|addrs|shoot ARGS…", run: from,
			does: "Let the probe in a pod (or in a pod of an app) do something."},
		"lab": {usage: "lab ARGS…", run: labctl,
			does: "Run the lab's command: lab wan cut c1 c2, lab machine reboot c1n1."},
		"eventually": {usage: "eventually TIME LINE…", wraps: true, run: eventually,
			does: "Play the line until it succeeds, for at most that time."},
		"repeat": {usage: "repeat N LINE…", wraps: true, run: repeat,
			does: "Play the line so many times; each must succeed."},
		"lines": {usage: "lines FILE", run: lines,
			does: "Play the lines of a file of the story, for repeat."},
		"never": {usage: "never TIME LINE…", wraps: true, run: never,
			does: "Play the line again and again for that time; it must fail each time."},
		"try": {usage: "try LINE… [shows …] [hides …]", wraps: true, run: try,
			does: "Play the line, which may succeed or fail; shows and hides look at what it printed either way."},
		"time": {usage: "time LABEL [under TIME] LINE…", wraps: true, run: timed,
			does: "Note how long the line took. With a limit, longer is a failure."},
		"measure": {usage: "measure LABEL UNIT [under N] LINE…", wraps: true, run: measure,
			does: "Note the largest number that the line prints."},
		"remember": {usage: "remember NAME LINE…", wraps: true, run: remember,
			does: "Keep what the line prints."},
		"unchanged": {usage: "unchanged NAME LINE…", wraps: true, run: unchanged,
			does: "The line prints what was remembered."},
		"let": {usage: "let NAME LINE…", wraps: true, run: let,
			does: "Give what the line prints a name: $NAME in later lines."},
		"start": {usage: "start NAME LINE…", wraps: true, run: start,
			does: "Let the line go on in the background, as soon as it has printed something."},
		"finish": {usage: "finish NAME", run: finish,
			does: "End what was started: close its input, wait for it, and print what it printed."},
		"addresses": {usage: "addresses CLUSTER/NAMESPACE/POD [4|6]", run: addresses,
			does: "Print a pod's addresses on its slice, as the pod sees them."},
		"attached": {usage: "attached CLUSTER/NAMESPACE[,…]", run: attached,
			does: "Print each pod's condition " + stage.AttachedCondition + "; fail unless all are True."},
		"containers": {usage: "containers CLUSTER/NAMESPACE[,…]", run: containers,
			does: "Print each container with its id, process id, start and restarts."},
		"paths": {usage: "paths CLUSTER[,…]", run: paths,
			does: "Print how each node reaches its peers: SLICE NODE > PEER direct|relay|none."},
		"took": {usage: "took CLUSTER/NAMESPACE[,…]", run: took,
			does: "Print for each pod the milliseconds from its sandbox's birth to its probed link."},
		"traces": {usage: "traces CLUSTER[,…]", run: traces,
			does: "Print everything an installation could leave: links, routes, rules, sysctls, files, objects."},
		"keys": {usage: "keys CLUSTER[,…]", run: keys,
			does: "Print every private key on the clusters' nodes: NODE SLICE KEY."},
		"search": {usage: "search CLUSTER for LINE…", wraps: true, run: search,
			does: "Look for the keys that the line prints in all objects and files of a cluster; print found=N."},
		"wire": {usage: "wire TEXT LINE…", wraps: true, run: onTheWire,
			does: "Record the WAN during the line; print the flows between members, and in how many packets TEXT was readable."},
		"probes": {usage: "probes NAMESPACE… in CLUSTER…", run: probes,
			does: "Send probes from every pod to every other, true and forged; fail if one got where it must not."},
		"chaos": {usage: "chaos FAULT… [runs N] [hold TIME]", run: playChaos,
			does: "Play faults (names, short, all) under a load in namespace load; what clients saw is held against what was expected."},
		"etcd": {usage: "etcd rounds N", run: playEtcd,
			does: "etcd over c1, c2 and c3 in namespace kv: kill, pause and cut members in turn; the history must be linearizable."},
		"autoscale": {usage: "autoscale stage CLUSTER… [after TIME] | prometheus | load RPS | room PODS | teach FILE | jump RPS [until CLUSTER] [in CLUSTER…]", run: playAutoscale,
			does: "A web service of known capacity with load and Prometheus in namespace shop: place it, print Prometheus' address, set its load, leave room on the nodes for so many more of its pods, make an Autoscaler that has learnt of it, let the load jump and print in how many milliseconds after the metric the scale is written (there, or in another cluster). Where it is placed in several clusters, say in which."},
		"postgres": {usage: "postgres [rounds N] [controls N]", run: playPostgres,
			does: "PostgreSQL over c1, c2 and c3 in namespace db: kill the primary's cluster N times; nothing acknowledged may be lost."},
		"say": {usage: "say TEXT…", run: say,
			does: "Tell the reader something loudly."},
	}
}

func fleetUp(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) == 0 {
		return "", misused("want at least one member")
	}
	if err := p.ready(ctx); err != nil {
		return "", err
	}
	return "", p.stage.Install(ctx, args...)
}

func bare(p *play, ctx context.Context, args []string) (string, error) {
	if err := p.ready(ctx); err != nil {
		return "", err
	}
	return "", p.stage.Uninstall(ctx)
}

func (p *play) ready(ctx context.Context) error {
	p.dirty = true
	if err := p.stage.Up(ctx); err != nil {
		return err
	}
	if err := p.stage.Images(ctx); err != nil {
		return err
	}
	return p.stage.Clean(ctx) // what a story that was killed may have left
}

func namespace(p *play, ctx context.Context, args []string) (string, error) {
	names, where := clauses(args, "in")
	if len(names) == 0 || len(where["in"]) == 0 {
		return "", misused("want names and clusters")
	}
	p.dirty = true
	return "", stage.Each(where["in"], func(c string) error {
		for _, n := range names {
			if err := p.stage.Namespace(ctx, c, n); err != nil {
				return err
			}
		}
		return nil
	})
}

func app(p *play, ctx context.Context, args []string) (string, error) {
	return p.runApp(ctx, args, false)
}
func pod(p *play, ctx context.Context, args []string) (string, error) {
	return p.runApp(ctx, args, true)
}

func (p *play) runApp(ctx context.Context, args []string, single bool) (string, error) {
	head, with := clauses(args, "in", "replicas", "node", "kind", "network")
	if len(head) != 1 || len(with["in"]) == 0 {
		return "", misused("want one NAMESPACE/NAME and clusters")
	}
	ns, name, ok := strings.Cut(head[0], "/")
	if !ok {
		return "", misused("%q: want NAMESPACE/NAME", head[0])
	}
	a := stage.App{Namespace: ns, Name: name, Single: single, Replicas: 1,
		Node: strings.Join(with["node"], ""), HostNetwork: strings.Join(with["network"], "") == "host",
		Stateful: strings.Join(with["kind"], "") == "stateful"}
	if r := with["replicas"]; r != nil {
		n, err := strconv.Atoi(strings.Join(r, ""))
		if err != nil {
			return "", misused("replicas %s: want a number", strings.Join(r, " "))
		}
		a.Replicas = n
	}
	p.dirty = true
	return "", stage.Each(with["in"], func(c string) error {
		a := a
		a.Cluster, a.Node = c, nodeIn(c, a.Node)
		return p.stage.Run(ctx, a)
	})
}

// nodeIn picks from a list of machines (c1n1,c2n1) the one of a cluster; machines are named after theirs.
func nodeIn(cluster, nodes string) string {
	for n := range strings.SplitSeq(nodes, ",") {
		if strings.HasPrefix(n, cluster+"n") {
			return n
		}
	}
	return ""
}

func in(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) < 2 {
		return "", misused("want clusters and a command")
	}
	return eachOf(args[0], func(c string) (string, error) {
		switch args[1] {
		case "seaway":
			return p.stage.Seawayctl(ctx, c, args[2:]...)
		case "kubectl":
			return p.stage.Kubectl(ctx, c, p.files(args[2:])...)
		}
		return "", misused("%q: want seaway or kubectl", args[1])
	})
}

// files makes the story's own files (-f broken.yaml) absolute.
func (p *play) files(args []string) []string {
	out := append([]string(nil), args...)
	for i := range out {
		if i > 0 && out[i-1] == "-f" && out[i] != "-" && p.script != nil {
			out[i] = p.script.MkAbs(out[i])
		}
	}
	return out
}

// paths makes the story's own files absolute; machines have the same /tmp as the host.
func (p *play) paths(args []string) []string {
	out := append([]string(nil), args...)
	for i, a := range out {
		if p.script == nil || strings.ContainsAny(a, " /") {
			continue
		}
		if f := p.script.MkAbs(a); strings.Contains(a, ".") && isFile(f) {
			out[i] = f
		}
	}
	return out
}

func isFile(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular()
}

func on(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) < 2 {
		return "", misused("want machines and a command")
	}
	line := p.paths(args[1:])
	machines := strings.Split(args[0], ",")
	said := make(map[string]string, len(machines))
	var mu sync.Mutex
	err := stage.Each(machines, func(m string) error {
		out, err := p.stage.Machine(ctx, m, line...)
		mu.Lock()
		defer mu.Unlock()
		said[m] = out
		return err
	})
	var b strings.Builder
	for _, m := range machines {
		b.WriteString(said[m])
	}
	return b.String(), err
}

func from(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) < 2 {
		return "", misused("want pods and what the probe is to do")
	}
	places, err := parsePlaces(args[0], 3)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, pl := range places {
		out, err := p.stage.Ask(ctx, stage.Errand{Cluster: pl.cluster, Namespace: pl.namespace, Pod: pl.pod, Args: args[1:], Stdin: input(ctx), Live: live(ctx)})
		b.WriteString(out)
		if err != nil {
			return b.String(), err
		}
	}
	return b.String(), nil
}

func labctl(p *play, ctx context.Context, args []string) (string, error) {
	p.dirty = true
	return p.stage.Labctl(ctx, args...)
}

// eachOf does the same for a comma-separated list and joins what was printed.
func eachOf(list string, f func(string) (string, error)) (string, error) {
	var b strings.Builder
	for name := range strings.SplitSeq(list, ",") {
		out, err := f(name)
		b.WriteString(out)
		if err != nil {
			return b.String(), err
		}
	}
	return b.String(), nil
}

// limit reads the time that a line begins with.
func limit(args []string) (time.Duration, []string, error) {
	if len(args) < 2 {
		return 0, nil, misused("want a time and a line")
	}
	d, err := time.ParseDuration(strings.TrimSuffix(args[0], ":"))
	if err != nil || d <= 0 {
		return 0, nil, misused("%q: want a time such as 30s", args[0])
	}
	return d, args[1:], nil
}

func eventually(p *play, ctx context.Context, args []string) (string, error) {
	d, line, err := limit(args)
	if err != nil {
		return "", err
	}
	// One look may end a little after the limit: what counts is when it began.
	until := time.Now().Add(d)
	ctx, cancel := context.WithTimeoutCause(ctx, d+10*time.Second, fmt.Errorf("waited %s", d))
	defer cancel()
	for looks := 1; ; looks++ {
		out, err := p.do(ctx, line)
		if err == nil || isMisuse(err) {
			return out, err
		}
		if time.Now().After(until) || ctx.Err() != nil {
			return out, fmt.Errorf("not within %s (%d looks); the last: %w", d, looks, err)
		}
		p.pause(ctx)
	}
}

func never(p *play, ctx context.Context, args []string) (string, error) {
	d, line, err := limit(args)
	if err != nil {
		return "", err
	}
	until := time.Now().Add(d)
	for looks := 1; ; looks++ {
		out, err := p.do(ctx, line)
		if isMisuse(err) {
			return out, err
		}
		if err == nil {
			return out, fmt.Errorf("this was never to succeed, and did at look %d:\n%s", looks, strings.TrimSpace(out))
		}
		if ctx.Err() != nil {
			return out, fmt.Errorf("the story ran out of time: %w", context.Cause(ctx))
		}
		if time.Now().After(until) {
			return out, nil
		}
		p.pause(ctx)
	}
}

func (p *play) pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(p.engine.Poll):
	}
}

func try(p *play, ctx context.Context, args []string) (string, error) {
	line, want, err := splitExpectation(args)
	if err != nil {
		return "", err
	}
	out, err := p.do(ctx, line)
	if isMisuse(err) {
		return out, err
	}
	if err != nil {
		out += err.Error() + "\n"
	}
	return out, want.check(out)
}

func timed(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) < 2 {
		return "", misused("want a label and a line")
	}
	label, line, most := args[0], args[1:], time.Duration(0)
	if line[0] == "under" {
		var err error
		if most, line, err = limit(line[1:]); err != nil {
			return "", err
		}
	}
	start := time.Now()
	out, err := p.do(ctx, line)
	d := time.Since(start)
	if err != nil {
		return out, err
	}
	p.measured(Measure{Label: label, Value: round(float64(d.Milliseconds())), Unit: "ms"})
	if most > 0 && d > most {
		return out, fmt.Errorf("%s took %s, and was to take at most %s", label, d.Round(time.Millisecond), most)
	}
	return out, nil
}

func (p *play) measured(m Measure) {
	p.measures = append(p.measures, m)
	over := ""
	if m.Bar > 0 && m.Value >= m.Bar {
		over = fmt.Sprintf(" (OVER its bar of %g)", m.Bar)
	}
	p.engine.tell("  measured %s: %g %s%s", m.Label, m.Value, m.Unit, over)
}

var number = regexp.MustCompile(`(?m)(?:^|[\s=])(-?[0-9]+(?:\.[0-9]+)?)(?:$|\s)`)

func measure(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) < 3 {
		return "", misused("want a label, a unit and a line")
	}
	m, line := Measure{Label: args[0], Unit: args[1]}, args[2:]
	if line[0] == "under" && len(line) > 2 {
		var err error
		if m.Bar, err = strconv.ParseFloat(line[1], 64); err != nil {
			return "", misused("under %s: want a number", line[1])
		}
		line = line[2:]
	}
	out, err := p.do(ctx, line)
	if err != nil {
		return out, err
	}
	all := number.FindAllStringSubmatch(out, -1)
	if len(all) == 0 {
		return out, fmt.Errorf("%s: there is no number in this:\n%s", m.Label, strings.TrimSpace(out))
	}
	for _, f := range all {
		v, _ := strconv.ParseFloat(f[1], 64)
		m.Value = max(m.Value, v)
	}
	p.measured(m)
	if most := m.Bar * max(p.engine.Slack, 1); most > 0 && m.Value >= most {
		return out, fmt.Errorf("%s is %g %s, and was to be under %g:\n%s", m.Label, m.Value, m.Unit, most, strings.TrimSpace(out))
	}
	return out, nil
}

func let(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) < 2 {
		return "", misused("want a name and a line")
	}
	out, err := p.do(ctx, args[1:])
	if err != nil {
		return out, err
	}
	value := strings.TrimSpace(out)
	if value == "" {
		return out, fmt.Errorf("nothing to call %s: the line printed nothing", args[0])
	}
	p.script.Setenv(args[0], value)
	return out, nil
}

func onTheWire(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) < 2 {
		return "", misused("want a text to look for and a line")
	}
	flows, err := p.stage.Capture(ctx, args[0], func() error {
		_, err := p.do(ctx, args[1:])
		return err
	})
	return wire.Table(flows), err
}

func say(p *play, _ context.Context, args []string) (string, error) {
	text := strings.Join(args, " ")
	p.note(text)
	p.engine.tell("  !!!!!!! %s", text)
	return text + "\n", nil
}

func remember(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) < 2 {
		return "", misused("want a name and a line")
	}
	out, err := p.do(ctx, args[1:])
	if err == nil {
		p.remembered[args[0]] = out
	}
	return out, err
}

func unchanged(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) < 2 {
		return "", misused("want a name and a line")
	}
	was, ok := p.remembered[args[0]]
	if !ok {
		return "", misused("nothing was remembered as %q", args[0])
	}
	is, err := p.do(ctx, args[1:])
	if err != nil {
		return is, err
	}
	if d := difference(was, is); d != "" {
		return is, fmt.Errorf("%s has changed (- was, + is):\n%s", args[0], d)
	}
	return is, nil
}

// difference lists the lines that are in one text only; "" if the texts have the same lines.
func difference(was, is string) string {
	count := map[string]int{}
	for l := range strings.Lines(is) {
		count[l]++
	}
	var b bytes.Buffer
	for l := range strings.Lines(was) {
		if count[l]--; count[l] < 0 {
			fmt.Fprintf(&b, "- %s\n", clip(l, 400))
		}
	}
	left := map[string]int{}
	for l := range strings.Lines(was) {
		left[l]++
	}
	for l := range strings.Lines(is) {
		if left[l]--; left[l] < 0 {
			fmt.Fprintf(&b, "+ %s\n", clip(l, 400))
		}
	}
	return b.String()
}
