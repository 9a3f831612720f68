package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"seaway.dev/seaway/autoscaler"
	"seaway.dev/seaway/controller"
	"seaway.dev/seaway/datapath"
	"seaway.dev/seaway/datapath/pod"
	"seaway.dev/seaway/discovery/dns"
	"seaway.dev/seaway/hub"
	"seaway.dev/seaway/install"
	"seaway.dev/seaway/kube"
	"seaway.dev/seaway/slice/node"
	"seaway.dev/seaway/tunnel"
)

// role makes a command that logs as JSON to standard error.
func role(use, short string, run func(*cobra.Command, *slog.Logger) error) *cobra.Command {
	var level slog.Level
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs}
	cmd.Flags().TextVar(&level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("role", use)
		klog.SetSlogLogger(log) // what Kubernetes' libraries have to say
		log.Info("starting", "version", version)
		return run(cmd, log)
	}
	return cmd
}

func hubCmd() *cobra.Command {
	var c hub.Config
	cmd := role("hub", "Run the hub (a role of the image)", func(cmd *cobra.Command, log *slog.Logger) (err error) {
		c.Log = log
		if c.Kube, err = kube.Config("", ""); err != nil {
			return err
		}
		return hub.Run(cmd.Context(), c)
	})
	cmd.Flags().StringVar(&c.Metrics, "metrics", ":8080", "`ADDRESS` of /metrics; 0: none")
	cmd.Flags().StringVar(&c.Health, "health", ":8081", "`ADDRESS` of /healthz and /readyz; 0: none")
	return cmd
}

func autoscalerCmd() *cobra.Command {
	var c autoscaler.Config
	cmd := role("autoscaler", "Run the autoscaler (a role of the image)", func(cmd *cobra.Command, log *slog.Logger) (err error) {
		c.Log = log
		if c.Kube, err = kube.Config("", ""); err != nil {
			return err
		}
		return autoscaler.Run(cmd.Context(), c)
	})
	f := cmd.Flags()
	f.StringVar(&c.Prometheus, "prometheus", "", "`URL` of the Prometheus for Autoscalers that name none")
	f.StringVar(&c.Metrics, "metrics", ":8080", "`ADDRESS` of /metrics; 0: none")
	f.StringVar(&c.Health, "health", ":8081", "`ADDRESS` of /healthz and /readyz; 0: none")
	f.StringVar(&c.KEDA, "keda", "", "`ADDRESS` of the external push scaler for KEDA, such as :9100; empty: none")
	f.IntVar(&c.Days, "days", 3, "days of evidence before an Autoscaler may do more")
	f.BoolVar(&c.Alone, "alone", false, "do not wait for the lease: for trials outside of the cluster")
	return cmd
}

func controllerCmd() *cobra.Command {
	var c controller.Config
	cmd := role("controller", "Run a member's controller (a role of the image)", func(cmd *cobra.Command, log *slog.Logger) (err error) {
		c.Log, c.Software = log, version
		if c.Member, err = kube.Config("", ""); err != nil {
			return err
		}
		return controller.Run(cmd.Context(), c)
	})
	cmd.Flags().StringVar(&c.Cluster, "cluster", "", "the member's `NAME` in the fleet")
	cmd.Flags().StringVar(&c.Pod, "pod", "", "`NAME` of this pod")
	return cmd
}

func agentCmd() *cobra.Command {
	var c node.Config
	var ips, address string
	var metricsPort uint16
	cmd := role("agent", "Run a node's agent (a role of the image)", func(cmd *cobra.Command, log *slog.Logger) error {
		finder, err := pod.NewFinder(pod.Config{Log: log})
		if err != nil {
			return err
		}
		defer finder.Close()
		var names dns.State
		c.Log, c.Pods, c.Tunnel, c.OnIntent = log, finder, tunnel.NewClient(tunnel.DefaultSocket), names.OnIntent
		c.Datapath = datapath.New(datapath.Config{Sandboxes: finder, Log: log})
		if c.ControllerAddr, err = netip.ParseAddr(address); err != nil {
			log.Warn("the controller is found by its name only", "controller-address", address)
		}
		var listen []netip.AddrPort
		for _, text := range strings.Split(ips, ",") {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return fmt.Errorf("--node-ip %q: want the node's addresses, separated by commas: %w", ips, err)
			}
			c.Addrs = append(c.Addrs, a)
			listen = append(listen, netip.AddrPortFrom(a, install.DNSPort))
			if metricsPort != 0 {
				c.Scrape.Addrs = append(c.Scrape.Addrs, netip.AddrPortFrom(a, metricsPort))
			}
		}
		c.Metrics = prometheus.NewRegistry()
		c.Names = func(ctx context.Context, failing func(error)) error {
			return dns.Serve(ctx, dns.Config{Addrs: listen, Log: log, Metrics: c.Metrics, Failing: failing}, names.Zone)
		}
		return node.Run(cmd.Context(), c)
	})
	f := cmd.Flags()
	f.StringVar(&c.Node, "node", "", "the node's `NAME`")
	f.StringVar(&ips, "node-ip", "", "the node's `ADDRESSES`, separated by commas")
	f.StringVar(&c.Controller, "controller", "", "`URL` of the controller")
	f.StringVar(&address, "controller-address", "", "`ADDRESS` of the controller's Service, for when its name is not answered; what is no address is not used")
	f.StringVar(&c.CAFile, "ca", "", "`FILE` with the authority that the controller's certificate is checked against")
	f.StringVar(&c.TokenFile, "token", "", "`FILE` with the token to show it")
	f.Uint16Var(&metricsPort, "metrics-port", 0, "TCP `PORT` of /metrics on the node's addresses, over TLS; 0: none")
	f.StringVar(&c.Scrape.TokenFile, "metrics-token", "", "`FILE` with the bearer token that /metrics wants; while it is missing nobody sees them")
	return cmd
}

func tunnelCmd() *cobra.Command {
	var c tunnel.Config
	var itself bool
	cmd := role("tunnel", "Run a node's tunnel (a role of the image)", func(cmd *cobra.Command, log *slog.Logger) error {
		c.Log = log
		if itself {
			return tunnel.Run(cmd.Context(), c)
		}
		return tunnel.Keep(cmd.Context(), log, func() *exec.Cmd {
			again := exec.Command("/proc/self/exe", append(os.Args[1:], "--itself")...)
			again.Args[0], again.Stdout, again.Stderr = os.Args[0], os.Stdout, os.Stderr
			return again
		})
	})
	cmd.Flags().BoolVar(&itself, "itself", false, "be the process that holds the tunnels, not its parent that starts it again when it dies")
	cmd.Flags().Uint16Var(&c.Port, "port", 0, "UDP `PORT` to open before the agent has said one")
	return cmd
}
