// Probe is what runs in the pods of stories and of the demo: a server that says who answers and who asked, over every
// transport, and a client for each of its questions. One static program, so that it is an image by itself.
//
//	probe serve                       answer on HTTP :8080 and TCP/UDP/SCTP :7001, and note every probe packet seen
//	probe get [-n N] URL              N fresh HTTP requests, one line of answer each
//	probe ask tcp|udp|sctp|icmp ADDR  one question, one line of answer
//	probe hold ADDR                   one TCP connection, a question every 20 ms, until stdin ends: lost, longest gap
//	probe count ADDR                  datagrams all the time, until stdin ends: how many were not answered
//	probe load -log FILE NAME=KIND:ADDR…   ask all the time by stream, dial or udp, and note what came of it (see load.go)
//	probe fate -file F HOST SERVICE   what becomes of connections to a host that is about to go (see fate.go)
//	probe dig NAME [A|AAAA|SRV]       what the pod's resolver answers
//	probe query [-tcp] NAME [TYPE]    the answer of the pod's name server as it came (see query.go)
//	probe addrs [LINK]                the addresses on a link, slice0 by default
//	probe shoot FILE                  packets with any source and destination, one a line (see shoot.go)
//	probe letters FROM TO WHAT        misbehave towards a carrier of bulletins (see letters.go)
//	probe seen                        the marks of probe packets that reached this pod
//	probe pause                       the sandbox's process: do nothing, well
//
// An answer is one line of key=value: proto, cluster, pod, local (the address asked), remote (who asked, as seen here).
package main

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// Ports of the server.
const (
	httpPort = 8080
	echoPort = 7001 // TCP, UDP and SCTP
	seenPort = 7002 // what the sniffer saw, for `probe seen`, on loopback only
)

const patience = 3 * time.Second // for one answer

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "probe: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("want one of serve, get, ask, hold, count, load, fate, dig, query, names, addrs, shoot, letters, seen, pause")
	}
	verbs := map[string]func([]string) error{
		"serve": serve, "get": get, "ask": ask, "hold": hold, "count": count, "load": load, "fate": fate, "dig": dig, "query": query, "names": names,
		"addrs": addrs, "shoot": shoot, "letters": letters, "seen": seen, "pause": pause,
	}
	verb, ok := verbs[args[0]]
	if !ok {
		return fmt.Errorf("%q: want one of serve, get, ask, hold, count, load, fate, dig, query, names, addrs, shoot, letters, seen, pause", args[0])
	}
	return verb(args[1:])
}

// identity is who this pod is, by the environment that the story's manifest sets.
func identity() string {
	pod := os.Getenv("POD")
	if pod == "" {
		pod, _ = os.Hostname()
	}
	return fmt.Sprintf("cluster=%s pod=%s", os.Getenv("CLUSTER"), pod)
}
