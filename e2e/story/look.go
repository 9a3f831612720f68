package story

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/e2e/stage"
)

func kernelHasSCTP() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

func addresses(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) < 1 || len(args) > 2 {
		return "", misused("want a pod, and 4 or 6")
	}
	out, err := from(p, ctx, []string{args[0], "addrs"})
	if err != nil || len(args) == 1 {
		return out, err
	}
	var b strings.Builder
	for a := range strings.Lines(out) {
		if strings.Contains(a, ":") == (args[1] == "6") {
			b.WriteString(a)
		}
	}
	if b.Len() == 0 {
		return "", fmt.Errorf("%s has no IPv%s address on a slice; it has %q", args[0], args[1], strings.Fields(out))
	}
	return b.String(), nil
}

// podsOf lists the pods of CLUSTER/NAMESPACE,… that are not going away.
func (p *play) podsOf(ctx context.Context, args []string) ([]stage.Pod, error) {
	if len(args) != 1 {
		return nil, misused("want CLUSTER/NAMESPACE")
	}
	places, err := parsePlaces(args[0], 2)
	if err != nil {
		return nil, err
	}
	var all []stage.Pod
	for _, pl := range places {
		pods, err := p.stage.Pods(ctx, pl.cluster, pl.namespace)
		if err != nil {
			return nil, err
		}
		if len(pods) == 0 {
			return nil, fmt.Errorf("there is no pod in %s/%s", pl.cluster, pl.namespace)
		}
		all = append(all, slices.DeleteFunc(pods, func(p stage.Pod) bool { return p.Leaving })...)
	}
	return all, nil
}

func attached(p *play, ctx context.Context, args []string) (string, error) {
	pods, err := p.podsOf(ctx, args)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	missing := 0
	for _, pod := range pods {
		c := pod.Attached
		if c.Status != "True" {
			missing++
		}
		fmt.Fprintf(&b, "%s/%s/%s %s %s %s\n", pod.Cluster, pod.Namespace, pod.Name, orDash(c.Status), orDash(c.Reason), c.Message)
	}
	if missing > 0 {
		return b.String(), fmt.Errorf("%d of %d pods are not attached:\n%s", missing, len(pods), b.String())
	}
	return b.String(), nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func containers(p *play, ctx context.Context, args []string) (string, error) {
	pods, err := p.podsOf(ctx, args)
	if err != nil {
		return "", err
	}
	pids := map[string]string{} // container → process, of all machines seen so far
	asked := map[string]bool{}
	var b strings.Builder
	for _, pod := range pods {
		if !asked[pod.Node] {
			asked[pod.Node] = true
			out, err := p.stage.Machine(ctx, pod.Node, "ctr", "-n", "k8s.io", "tasks", "ls")
			if err != nil {
				return "", err
			}
			for l := range strings.Lines(out) {
				if f := strings.Fields(l); len(f) >= 2 {
					pids[f[0]] = f[1]
				}
			}
		}
		for _, c := range pod.Containers {
			id := strings.TrimPrefix(c.ID, "containerd://")
			fmt.Fprintf(&b, "%s/%s/%s container=%s id=%.12s pid=%s started=%s restarts=%d\n",
				pod.Cluster, pod.Namespace, pod.Name, c.Name, id, pids[id], c.Started.Format("15:04:05"), c.Restarts)
		}
	}
	return b.String(), nil
}

func paths(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) != 1 {
		return "", misused("want clusters")
	}
	return eachOf(args[0], func(c string) (string, error) {
		st, err := p.stage.Status(ctx, c)
		if err != nil {
			return "", err
		}
		var b strings.Builder
		for _, n := range st.Nodes {
			for _, peer := range n.Peers {
				fmt.Fprintf(&b, "%s %s/%s > %s %s\n", peer.Slice, c, n.Name, peer.Peer, orDash(peer.Path))
			}
		}
		return b.String(), nil
	})
}

func took(p *play, ctx context.Context, args []string) (string, error) {
	pods, err := p.podsOf(ctx, args)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, pod := range pods {
		st, err := p.stage.Status(ctx, pod.Cluster)
		if err != nil {
			return "", err
		}
		found := false
		for _, n := range st.Nodes {
			for _, a := range n.Pods {
				if a.PodUID == pod.UID && a.Took > 0 {
					found = true
					fmt.Fprintf(&b, "%s/%s/%s took %.1f ms\n", pod.Cluster, pod.Namespace, pod.Name, a.Took)
				}
			}
		}
		if !found {
			return b.String(), fmt.Errorf("no node of %s says how long attaching %s/%s took", pod.Cluster, pod.Namespace, pod.Name)
		}
	}
	return b.String(), nil
}
