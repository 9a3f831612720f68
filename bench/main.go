// Command bench measures, side by side on one machine, how fast pods reach each other: over a plain veth pair, VXLAN,
// a bare userspace WireGuard device, OpenVPN, and Seaway on one node, directly between nodes, and by a relay.
//
// Every way gets its own network namespaces, made at the start and removed at the end. They are measured in interleaved
// rounds (A B C … A B C …), so that whatever else the machine does falls on all of them, and compared by their medians.
// It needs root, and iproute2; OpenVPN is left out, loudly, where it is not installed.
//
//	go run ./bench -rounds 5 -out bench.json
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/tunnel"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	var o options
	flag.StringVar(&o.out, "out", "", "also write the figures as JSON to this file")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds; the medians of all count")
	flag.DurationVar(&o.each, "time", 2*time.Second, "length of one throughput measurement")
	flag.StringVar(&o.only, "only", "", "ways to measure, by name, separated by commas (default: all)")
	flag.StringVar(&o.tests, "tests", "tcp1,tcp4,udp,rtt", "measurements to make")
	flag.StringVar(&o.profile, "profile", "", "write CPU profiles of the Seaway tunnel processes into this directory")
	role := flag.String("role", "", "internal: run as one of the processes under test (tunnel, wireguard)")
	conf := flag.String("conf", "", "internal: its configuration")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	switch *role {
	case "tunnel":
		return tunnelRole(ctx, *conf, o.profile)
	case "wireguard":
		return wireguardRole(ctx, *conf)
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root, to make network namespaces")
	}
	return o.measure(ctx)
}

// tunnelRole is the real tunnel process.
func tunnelRole(ctx context.Context, conf, profile string) error {
	var c tunnel.Config
	if err := json.Unmarshal([]byte(conf), &c); err != nil {
		return err
	}
	c.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	defer profiled(profile, strings.ReplaceAll(c.RunDir, "/", "_"))()
	return tunnel.Run(ctx, c)
}
