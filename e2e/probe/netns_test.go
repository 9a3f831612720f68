package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEveryQuestionBetweenTwoNamespaces lets a client ask a server over a veth in every way that stories use.
func TestEveryQuestionBetweenTwoNamespaces(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("SKIPPED: makes network namespaces, which -short leaves alone and which needs root")
	}
	bin := filepath.Join(t.TempDir(), "probe")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	a, b := fmt.Sprintf("e2e-a%d", os.Getpid()), fmt.Sprintf("e2e-b%d", os.Getpid())
	t.Cleanup(func() {
		exec.Command("ip", "netns", "del", a).Run()
		exec.Command("ip", "netns", "del", b).Run()
	})
	for _, line := range []string{
		"netns add " + a, "netns add " + b,
		"link add slice0 netns " + a + " type veth peer name slice0 netns " + b,
		"-n " + a + " link set lo up", "-n " + a + " link set slice0 up", "-n " + b + " link set slice0 up",
		"-n " + a + " addr add 10.77.0.1/16 dev slice0", "-n " + b + " addr add 10.77.0.2/16 dev slice0",
		"-n " + a + " addr add fd77::1/64 dev slice0 nodad", "-n " + b + " addr add fd77::2/64 dev slice0 nodad",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", line, err, out)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	server := exec.CommandContext(ctx, "ip", "netns", "exec", a, bin, "serve")
	server.Env = append(os.Environ(), "CLUSTER=c1", "POD=web")
	var log bytes.Buffer
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Wait()
	defer server.Process.Kill()
	client := func(stdin string, args ...string) (string, error) {
		c := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", b, bin}, args...)...)
		c.Stdin = strings.NewReader(stdin)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	for { // until the server listens
		if _, err := client("", "ask", "tcp", "10.77.0.1"); err == nil {
			break
		} else if ctx.Err() != nil {
			t.Fatalf("%v\n%s", err, log.String())
		}
	}
	for line, want := range map[string]string{
		"get -n 2 http://10.77.0.1:8080/": "proto=http cluster=c1 pod=web",
		"get http://[fd77::1]:8080/":      "remote=[fd77::2]:",
		"ask tcp 10.77.0.1":               "remote=10.77.0.2:",
		"ask tcp fd77::1":                 "remote=[fd77::2]:",
		"ask udp 10.77.0.1":               "remote=10.77.0.2:",
		"ask udp fd77::1":                 "remote=[fd77::2]:",
		"ask udp -size 4000 10.77.0.1":    "size=4000",
		"ask udp -size 4000 fd77::1":      "size=4000",
		"ask icmp 10.77.0.1":              "proto=icmp local=10.77.0.1",
		"ask icmp fd77::1":                "proto=icmp local=fd77::1",
		"ask sctp 10.77.0.1":              "remote=10.77.0.2:",
		"ask sctp fd77::1":                "remote=[fd77::2]:",
		"hold 10.77.0.1":                  "broken=0",
		"addrs":                           "10.77.0.2\nfd77::2\n",
	} {
		if out, err := client("", strings.Fields(line)...); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	if out, err := client("10.77.0.2 10.77.0.1 true\n10.9.9.9 10.77.0.1 forged\nfd77::2 fd77::1 six\n", "shoot", "-"); err != nil {
		t.Errorf("shoot: %v\n%s", err, out)
	}
	for {
		out, _ := exec.CommandContext(ctx, "ip", "netns", "exec", a, bin, "seen").CombinedOutput()
		if string(out) == "forged\nsix\ntrue\n" {
			break
		} else if ctx.Err() != nil {
			t.Fatalf("seen: %q", out)
		}
	}
}
