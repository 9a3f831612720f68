package story

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"seaway.dev/seaway/e2e/stage"
)

// machineTraces prints what an installation could leave on a machine, a fact a line. Left out is only what changes by
// itself: counters, times, what containerd and the kubelet keep for each pod, etcd's own files, and kube-proxy's own table,
// which it sweeps whenever it likes.
const machineTraces = `
ip -o link | sed -E 's/^[0-9]+: ([^:@]+).*(mtu [0-9]+).*/link \1 \2/'
ls /run/netns /var/run/netns 2>/dev/null | sed 's/^/netns /' | sort -u
ip -4 route show table all | sed 's/^/route4 /'
ip -6 route show table all | grep -v 'expires' | sed 's/^/route6 /'
ip -4 rule | sed 's/^/rule4 /'
ip -6 rule | sed 's/^/rule6 /'
nft list tables 2>/dev/null | sed 's/^/nft /' | sort
nft list tables 2>/dev/null | grep -v 'kube-proxy$' | while read t; do
  nft -s list $t 2>/dev/null | sed -E 's/^[[:space:]]*/nft /; s/ # handle [0-9]+//'
done
for t in iptables-save ip6tables-save iptables-legacy-save ip6tables-legacy-save; do
  $t 2>/dev/null | grep -v '^#' | sed -E "s/\[[0-9]+:[0-9]+\]//; s/^/$t /"
done
sysctl -a 2>/dev/null | grep -E '^(net|kernel|fs|vm|user)\.' |
  grep -vE 'conntrack_count|random|dentry-state|file-nr|inode-nr|inode-state|ns_last_pid|pty.nr|neigh\.|(ipv[46]\.conf\.veth)|aio-nr|fs\.quota|stat_refresh|tainted|sched_domain|keys-' | sed 's/^/sysctl /'
find /run /var/lib /etc /opt /usr/local -xdev \
  \( -path /run/containerd -o -path /var/lib/containerd -o -path /var/lib/kubelet/pods -o -path /run/xtables.lock -o -path '/var/lib/cni/results' \
     -o -path /var/lib/kubelet/plugins -o -path /run/netns -o -path /var/lib/seaway-lab -o -path /var/lib/etcd/data/member -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path '/run/user' \) -prune \
  -o -print 2>/dev/null | sed 's/^/file /'
awk '{print "mount " $2 " " $3}' /proc/mounts | grep -vE 'containerd|kubelet/pods|/run/netns/cni-'
for p in /proc/[0-9]*; do
  e=$(readlink $p/exe 2>/dev/null) && case "$e" in */seaway|*/seaway\ *) echo "process $e";; esac
done
true
`

// traces prints the facts of every machine and of the API of each cluster, sorted.
func traces(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) != 1 {
		return "", misused("want clusters")
	}
	l, err := p.stage.Layout(ctx)
	if err != nil {
		return "", err
	}
	var mu sync.Mutex
	var all []string
	add := func(where, out string) {
		mu.Lock()
		defer mu.Unlock()
		for line := range strings.Lines(out) {
			all = append(all, where+" "+strings.TrimSpace(line)+"\n")
		}
	}
	err = stage.Each(strings.Split(args[0], ","), func(name string) error {
		c, err := l.Cluster(name)
		if err != nil {
			return misused("%v", err)
		}
		if err := stage.Each(append([]string{c.Control}, c.Nodes...), func(m string) error {
			out, err := p.stage.Machine(ctx, m, "sh", "-c", machineTraces)
			add(m, out)
			return err
		}); err != nil {
			return err
		}
		out, err := p.objects(ctx, name)
		add(name, out)
		return err
	})
	slices.Sort(all)
	return strings.Join(all, ""), err
}

// volatile kinds come and go by themselves.
var volatile = map[string]bool{
	"events": true, "events.events.k8s.io": true, "leases.coordination.k8s.io": true, "pods": true, "endpoints": true,
	"endpointslices.discovery.k8s.io": true, "nodes.metrics.k8s.io": true, "pods.metrics.k8s.io": true,
	"controllerrevisions.apps": true, "certificatesigningrequests.certificates.k8s.io": true, "componentstatuses": true,
	"ipaddresses.networking.k8s.io": true, "csinodes.storage.k8s.io": true, "replicasets.apps": true,
}

// objects prints every object of a cluster with its content, without what the API server itself changes.
func (p *play) objects(ctx context.Context, cluster string) (string, error) {
	out, err := p.stage.Kubectl(ctx, cluster, "api-resources", "--verbs=list", "-o", "name")
	if err != nil {
		return "", err
	}
	kinds := slices.DeleteFunc(strings.Fields(out), func(k string) bool { return volatile[k] })
	out, err = p.stage.Kubectl(ctx, cluster, "get", strings.Join(kinds, ","), "-A", "-o", "json")
	if err != nil {
		return "", err
	}
	return objectFacts(out)
}

func objectFacts(text string) (string, error) {
	var list struct{ Items []map[string]any }
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return "", fmt.Errorf("objects: %w", err)
	}
	var b strings.Builder
	for _, o := range list.Items {
		meta, _ := o["metadata"].(map[string]any)
		for _, k := range []string{"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"} {
			delete(meta, k)
		}
		if a, _ := meta["annotations"].(map[string]any); a != nil {
			delete(a, "deployment.kubernetes.io/revision")
			delete(a, "kubectl.kubernetes.io/last-applied-configuration")
			if len(a) == 0 {
				delete(meta, "annotations")
			}
		}
		delete(o, "status")
		body, err := json.Marshal(o)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "object %v %v/%v %s\n", o["kind"], orDash(str(meta["namespace"])), meta["name"], body)
	}
	return b.String(), nil
}

func str(v any) string {
	s, _ := v.(string)
	return s
}
