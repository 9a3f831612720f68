package chaos

import (
	"slices"
	"strings"
	"time"
)

// Flows, by their names in expectations:
//
//	far.*      a pod of c1 on c1n1 asks a pod of c2 on c2n1, by the pod's address
//	third.*    the same pod of c1 asks a pod of c3, the private cluster, on c3n1
//	svc.*      the same pod asks the ClusterSetIP of a service with pods on c2n1 and on c3n1 (svc1, svc2, svc3, svc.dial)
//	plain.*    controls, past the slice: c1n1 asks c2n1 by their addresses on the WAN; plain3.*: c3n1 asks c1n1
const (
	slice   = "far.*,third.*,svc*"
	streams = "far.stream,third.stream,svc?.stream"
	// controls are the machines of the members' API servers.
	controls = "c1cp,c2cp,c3cp"
)

// role sends a signal to one of Seaway's processes on machines.
func role(machines, name, signal string) string {
	return "on " + machines + " sh -c 'for p in $(pidof seaway); do tr \"\\0\" \" \" </proc/$p/cmdline | grep -q \"seaway " + name + "\" && kill -" + signal + " $p; done; true'"
}

// step moves the clock of Seaway's programs on machines: USR1 a minute forward, USR2 a minute back (e2e/chaos/clock).
func step(machines, signal string) []string {
	return []string{"on " + machines + " sh -c 'kill -" + signal + " $(pidof seaway)'"}
}

// rotation changes the slice's keys once, until no node has an older one.
var rotation = []string{"in hub seaway slice rotate load --wait 60s"}

// anew puts new pods in the place of those whose programs died: the kubelet leaves what dies again and again alone for
// longer each time, and the next run would find nothing to kill.
func anew(name string, machines ...string) []string {
	var out []string
	for _, m := range machines {
		out = append(out, "in "+m[:2]+" kubectl delete pods -n seaway-system -l app.kubernetes.io/name=seaway-"+name+" --field-selector spec.nodeName="+m+" --wait=false")
	}
	for _, m := range machines {
		out = append(out, "eventually 30s in "+m[:2]+" kubectl wait --for=condition=Ready pods -n seaway-system -l app.kubernetes.io/name=seaway-"+name+" --field-selector spec.nodeName="+m+" --timeout=1s")
	}
	return out
}

// forget makes the client's node forget that others fell: how long one must answer until it is trusted again doubles with
// each fall within a minute, and each run is to be a first fall.
var forget = forgetting("c1n1")

func forgetting(machines ...string) []string {
	return append([]string{role(strings.Join(machines, ","), "tunnel .*--itself", "KILL")}, anew("agent", machines...)...)
}

// restart rolls workloads of Seaway in members.
func restart(what string) []string {
	return []string{"in c1,c2,c3 kubectl rollout restart " + what + " -n seaway-system", "in c1,c2,c3 kubectl rollout status " + what + " -n seaway-system --timeout=120s"}
}

// wan sets something on all links between members.
func wan(what string) []string {
	return []string{"lab wan set c1 c2 " + what, "lab wan set c1 c3 " + what, "lab wan set c2 c3 " + what}
}

func links(what string) []string {
	return []string{"lab wan " + what + " c1 c2", "lab wan " + what + " c1 c3", "lab wan " + what + " c2 c3"}
}

// blips cut each cluster off from everybody for a moment, one after the other, again and again: an hour of it is `make chaos
// STORY=blips RUNS=50`.
func blips(times int) []string {
	var once []string
	for _, c := range []string{"c1", "c2", "c3"} {
		once = append(once, "lab wan cut "+c+" all", "wait 100ms", "lab wan heal "+c+" all", "wait 2s")
	}
	return slices.Repeat(once, times)
}

func lines(parts ...[]string) []string {
	var out []string
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// unnoticed is what clients see of something that is none of their business. A busy machine of two cores makes gaps of
// its own, which the controls past the slice have as well.
var unnoticed = []string{streams + " excess p99 <= 500ms", slice + " resets sum = 0", streams + " stuck sum = 0"}

// Catalogue is all faults. The bars are those of a WAN with round trips of 20 ms between members.
var Catalogue = []Fault{
	{Name: "nothing", Tells: "nothing is done: what the machine itself adds to every figure", Hold: 5 * time.Second,
		Expect: []string{slice + " resets sum = 0", streams + " stuck sum = 0"}},
	{Name: "tunnel-held", Tells: "the tunnel of the client's node stands still for a second: the control of everything that goes unnoticed",
		Inject: []string{role("c1n1", "tunnel", "STOP")}, Hold: time.Second, Watch: 6 * time.Second, Undo: []string{role("c1n1", "tunnel", "CONT")},
		Expect:  []string{"far.dial,svc.dial clear p99 <= 5s", "far.stream,third.stream stuck sum = 0"}, // who is silent for a second is dead: resets are right
		Control: []string{"far.stream gap p50 >= 900ms"}, Short: true},

	{Name: "gateway-killed", Tells: "the gateway that carries a connection loses its power: another carries on",
		Needs: []string{"c2n3"}, Given: []string{"lab wan cut c1n1 c2n1"}, After: []string{"lab wan heal c1n1 c2n1"},
		Inject: []string{"lab machine kill $RELAYNODE"}, Hold: 4 * time.Second, Undo: []string{"lab machine start --wait $RELAYNODE"},
		Expect:  []string{"far.stream gap p99 <= 300ms", "far.stream resets sum = 0", "far.stream stuck sum = 0"},
		Control: []string{"plain.stream gap p50 >= 3500ms"}},
	{Name: "gateway-paused", Tells: "the gateway that carries a connection hangs: another carries on",
		Needs: []string{"c2n3"}, Given: []string{"lab wan cut c1n1 c2n1"}, After: []string{"lab wan heal c1n1 c2n1"},
		Inject: []string{"lab machine pause $RELAYNODE"}, Hold: 4 * time.Second, Undo: []string{"lab machine resume $RELAYNODE"},
		Expect:  []string{"far.stream gap p99 <= 300ms", "far.stream resets sum = 0", "far.stream stuck sum = 0"},
		Control: []string{"plain.stream gap p50 >= 3500ms"}},
	{Name: "node-killed", Tells: "a node loses its power: its clients are told, and a service answers from elsewhere",
		Inject: []string{"lab machine kill c2n1"}, Hold: 6 * time.Second, Undo: append([]string{"lab machine start c2n1"}, forget...),
		Expect: []string{"svc.dial clear p99 <= 1s", "svc*.stream mend p50 <= 500ms", "svc*.stream mend p99 <= 1s", "far.stream told p99 <= 1s",
			"third.stream excess p99 <= 300ms"},
		Control: []string{"plain.stream gap p50 >= 5s"}},
	{Name: "node-rebooted", Tells: "a node is switched off and on: its pods are back without being asked",
		Inject: []string{"lab machine reboot --wait c2n1"}, Hold: 0, Watch: 20 * time.Second,
		Expect: []string{"svc.dial clear p99 <= 15s", "far.stream mend p99 <= 20s", slice + " stuck sum = 0"}},
	{Name: "cluster-killed", Tells: "a whole cluster loses its power: its clients are told, and a service answers from elsewhere",
		Inject: []string{"lab machine kill $C2"}, Hold: 6 * time.Second, Undo: append([]string{"lab machine start $C2"}, forget...),
		Expect: []string{"svc.dial clear p99 <= 1s", "svc*.stream mend p50 <= 500ms", "svc*.stream mend p99 <= 1s", "far.stream told p99 <= 1s",
			"third.stream excess p99 <= 300ms"},
		Control: []string{"plain.stream gap p50 >= 5s"}},
	{Name: "cluster-paused", Tells: "a whole cluster hangs and comes back: nothing of what it then says does harm",
		Inject: []string{"lab machine pause $C2"}, Hold: 6 * time.Second, Watch: 12 * time.Second, Undo: []string{"lab machine resume $C2"},
		Expect:  []string{"svc.dial clear p99 <= 7500ms", "third.stream excess p99 <= 300ms", slice + " stuck sum = 0"},
		Control: []string{"plain.stream gap p50 >= 5s"}},

	{Name: "pair-cut", Tells: "two clusters are cut from each other: what they say goes through the third",
		Inject: []string{"lab wan cut c1 c3"}, Hold: 4 * time.Second, Undo: []string{"lab wan heal c1 c3"},
		Expect:  []string{"third.stream gap p99 <= 500ms", slice + " resets sum = 0", streams + " stuck sum = 0", "far.stream excess p99 <= 500ms"},
		Control: []string{"plain3.stream gap p50 >= 3500ms"}}, // short form: story path-failover
	{Name: "one-way-cut", Tells: "nothing arrives from one cluster at another, only the other way: as if both were cut",
		Inject: []string{"lab wan cut c3 c1 --one-way"}, Hold: 6 * time.Second, Undo: []string{"lab wan heal c3 c1 --one-way"},
		Expect:  []string{"third.stream gap p99 <= 500ms", slice + " resets sum = 0", streams + " stuck sum = 0", "far.stream excess p99 <= 500ms"},
		Control: []string{"plain3.stream gap p50 >= 5s"}},
	{Name: "hub-cut", Tells: "the hub is cut off from everybody: nobody but people who want something new notices",
		Inject: []string{"lab wan cut hub all"}, Hold: 6 * time.Second, Undo: []string{"lab wan heal hub all"}, Expect: unnoticed, Short: true},
	{Name: "hub-killed", Tells: "the hub's whole cluster is gone, with its etcd: nobody but people who want something new notices",
		Inject: []string{"lab machine kill hubn1 hubcp"}, Hold: 20 * time.Second, Undo: []string{"lab machine start --wait hubcp hubn1"}, Expect: unnoticed},
	{Name: "api-paused", Tells: "the members' API servers hang for 30 s: nothing but new intent waits",
		Inject: []string{"on " + controls + " sh -c 'kill -STOP $(pidof kube-apiserver)'"}, Hold: 30 * time.Second,
		Undo: []string{"on " + controls + " sh -c 'kill -CONT $(pidof kube-apiserver)'"}, Expect: unnoticed},
	{Name: "api-slow", Tells: "the members' API servers answer after 5 s, again and again: nothing but new intent waits",
		Inject: []string{"on " + controls + " sh -c 'p=$(pidof kube-apiserver); for i in 1 2 3 4; do kill -STOP $p; sleep 5; kill -CONT $p; sleep 0.2; done'"},
		Hold:   2 * time.Second, Undo: []string{"on " + controls + " sh -c 'kill -CONT $(pidof kube-apiserver)'"}, Expect: unnoticed},
	{Name: "api-refused", Tells: "the members' API servers refuse every connection for 20 s: nothing but new intent waits",
		Inject: []string{"on " + controls + " nft 'table inet chaos { chain in { type filter hook input priority -10; tcp dport 6443 reject with tcp reset; }; }'"},
		Hold:   20 * time.Second, Undo: []string{"on " + controls + " sh -c 'nft delete table inet chaos; true'"}, Expect: unnoticed},
	{Name: "flapping", Tells: "all links are off and on for 5 s each, twice: damped, and all is well a second after each return",
		Inject: lines(links("cut"), []string{"wait 5s"}, links("heal"), []string{"wait 5s"}, links("cut"), []string{"wait 5s"}, links("heal")),
		Hold:   4 * time.Second, Undo: forgetting("c1n1", "c2n1", "c3n1"),
		Expect: []string{slice + " excess p99 <= 1s", slice + " stuck sum = 0"}, Control: []string{"far.stream gap p50 >= 4s"}},
	{Name: "blips", Tells: "each cluster is cut off for a moment, thirty times in a minute: nobody is taken for dead, which would break connections",
		Inject: blips(10), Hold: time.Second, Undo: []string{"lab wan heal c1 all", "lab wan heal c2 all", "lab wan heal c3 all"},
		Expect:  []string{slice + " resets sum = 0", streams + " stuck sum = 0", "far.stream,third.stream excess p99 <= 300ms"}, // a lost SYN is sent again after a second
		Control: []string{"far.stream gap p50 >= 100ms"}},
	{Name: "loss-jitter", Tells: "5 % loss and 50 ms of jitter: slow, and no verdict flips",
		Inject: wan("--loss 5% --delay 60ms --jitter 50ms"), Hold: 12 * time.Second, Undo: wan("--loss 0% --jitter 0s --delay 10ms"),
		Expect: []string{slice + " resets sum = 0", "any flips sum = 0"}, Control: []string{"far.udp errors sum >= 1"}},
	{Name: "delay-200ms", Tells: "every path gets 200 ms longer: slow, and no verdict flips",
		Inject: wan("--delay 110ms"), Hold: 8 * time.Second, Undo: wan("--delay 10ms"),
		Expect: []string{slice + " resets sum = 0", "far.stream,third.stream gap p99 <= 600ms", "any flips sum = 0"}, Control: []string{"far.stream gap p50 >= 150ms"}},

	{Name: "agent-restarted", Tells: "the agents die and come back: no packet notices",
		Inject: []string{role("c1n1,c2n1,c3n1", "agent", "KILL")}, Hold: 5 * time.Second, Undo: anew("agent", "c1n1", "c2n1", "c3n1"), Expect: unnoticed, Short: true},
	{Name: "tunnel-restarted", Tells: "a tunnel process dies and comes back: under a second, and connections live",
		Inject: []string{role("c1n1", "tunnel .*--itself", "KILL")}, Hold: 4 * time.Second,
		Expect: []string{"far.stream gap p99 <= 1s", "far.stream,third.stream resets sum = 0", streams + " stuck sum = 0"}},
	{Name: "tunnel-container-killed", Tells: "a tunnel's whole container dies, and the kubelet starts another: connections may break, and are told",
		Inject: []string{role("c1n1", "tunnel", "KILL")}, Hold: 6 * time.Second, Undo: anew("tunnel", "c1n1"),
		Expect: []string{"far.stream gap p99 <= 5s", streams + " stuck sum = 0"}, Control: []string{"far.stream gap p50 >= 500ms"}},
	{Name: "controller-restarted", Tells: "all controllers die and come back: no packet notices",
		Inject: []string{role("c1n1,c1n2,c2n1,c2n2,c2n3,c3n1,c3n2", "controller", "KILL")}, Hold: 6 * time.Second, Undo: restart("deployment/seaway-controller"), Expect: unnoticed},
	{Name: "containerd-restarted", Tells: "the container runtime dies and comes back: no packet notices",
		Inject: []string{"on c1n1,c2n1 sh -c 'kill -9 $(pidof containerd)'"}, Hold: 6 * time.Second,
		Undo: []string{"eventually 30s on c1n1,c2n1 ctr -n k8s.io version"}, Expect: unnoticed},
	{Name: "sandbox-recreated", Tells: "a pod's sandbox dies: the pod is on its slice again without being asked",
		Inject: []string{"on c2n1 sh -c 'kill -9 $(for p in /proc/[0-9]*; do grep -qs $FARUID $p/cgroup && grep -qs pause $p/comm && basename $p; done)'"},
		Hold:   0, Watch: 20 * time.Second, Expect: []string{"far.dial clear p99 <= 15s", "far.* stuck sum = 0", "third.stream excess p99 <= 300ms"},
		Control: []string{"far.stream resets sum >= 1"}},
	{Name: "rolling-upgrade", Tells: "every component is rolled, one after the other: connections live",
		Inject: lines(restart("daemonset/seaway-agent"),
			restart("daemonset/seaway-tunnel"),
			restart("deployment/seaway-controller"),
			[]string{"in hub kubectl rollout restart deployment/seaway-hub -n seaway-system", "in hub kubectl rollout status deployment/seaway-hub -n seaway-system --timeout=120s"}),
		Watch: 5 * time.Second, Expect: []string{slice + " resets sum = 0", "far.stream,third.stream gap p99 <= 1500ms", streams + " stuck sum = 0"}},

	{Name: "mtu-1280", Tells: "a path carries packets of 1280 bytes only: large questions pass",
		Inject: []string{"router ip link set br-c2 mtu 1280"}, Hold: 10 * time.Second, Undo: []string{"router ip link set br-c2 mtu 1500"},
		Expect: []string{"far.big gap p99 <= 1s", "far.big stuck sum = 0", "far.stream excess p99 <= 300ms", slice + " resets sum = 0"}},
	{Name: "keys-rotated", Tells: "the slice's keys change again and again, ten seconds apart: no packet notices",
		Inject: lines(rotation, []string{"wait 10s"}, rotation, []string{"wait 10s"}, rotation), Hold: 2 * time.Second,
		Expect: append([]string{"far.udp,third.udp errors sum = 0"}, unnoticed...)},
	{Name: "clock-steps", Tells: "a cluster's clock is a minute ahead, another's a minute late, keys change, and the clocks are right again: no packet notices",
		Given:  []string{"on c1n1,c2n1,hubn1 sh -c 'grep -q \"wall clock of this program\" /proc/$(pidof -s seaway)/exe'"}, // `make chaos` builds it so
		Inject: lines(step("c1n1,c1n2,hubn1", "USR1"), step("c2n1,c2n2", "USR2"), []string{"wait 5s"}, rotation), Hold: 15 * time.Second, Watch: 30 * time.Second,
		Undo: lines(step("c1n1,c1n2,hubn1", "USR2"), step("c2n1,c2n2", "USR1")), Expect: unnoticed},
	{Name: "double-fault", Tells: "two clusters are cut, and while that is handled a node of the third loses its power",
		Inject: []string{"lab wan cut c1 c3", "wait 300ms", "lab machine kill c2n2"}, Hold: 6 * time.Second,
		Undo:   []string{"lab wan heal c1 c3", "lab machine start --wait c2n2"},
		Expect: []string{"third.stream gap p99 <= 1500ms", "third.stream resets sum = 0", streams + " stuck sum = 0"}, Control: []string{"plain3.stream gap p50 >= 5s"}},
}
