// Command lab-app is the lab's test application: a server of several protocols
// and the probes that tests need, in one static binary without dependencies.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

type command struct {
	run  func(args []string) int
	help string
}

func commands() map[string]command {
	return map[string]command{
		"pause": {pause, "reap orphans until told to end (the pod sandbox's process)"},
		"serve": {serve, "HTTP on :8080, TCP echo on :9000, UDP echo on :9001"},
		"get":   {get, "fetch a URL, once or many times"},
		"probe": {probe, "say whether an address is open, closed or silent: TCP, UDP, ICMP, SCTP"},
		"spoof": {spoof, "send UDP datagrams with a forged source (needs NET_RAW)"},
		"load":  {load, "many requests at the same time, and how long they took"},
		"sleep": {sleep, "do nothing until told to end"},
	}
}

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	cmds := commands()
	if _, ok := cmds[name]; !ok && len(args) > 0 {
		name, args = args[0], args[1:]
	}
	c, ok := cmds[name]
	if !ok {
		usage(cmds)
		os.Exit(2)
	}
	os.Exit(c.run(args))
}

func usage(cmds map[string]command) {
	fmt.Fprintln(os.Stderr, "usage: lab-app COMMAND [-h]")
	for _, n := range strings.Fields("serve get probe spoof load sleep pause") {
		if c, ok := cmds[n]; ok {
			fmt.Fprintf(os.Stderr, "  %-7s %s\n", n, c.help)
		}
	}
}
