package tunnel

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/datapath/netnstest"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// processEnv makes the test binary a tunnel process, so that tests can kill it.
const processEnv = "SEAWAY_TEST_TUNNEL"

func TestMain(m *testing.M) {
	if conf := os.Getenv(processEnv); conf != "" {
		os.Exit(tunnelProcess(conf))
	}
	os.Exit(m.Run())
}

func tunnelProcess(conf string) int {
	var c Config
	if err := json.Unmarshal([]byte(conf), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	c.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	if err := Run(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// node is a machine with a tunnel process and slices.
type node struct {
	t      *testing.T
	id     string
	host   *netnstest.NS
	slices map[string]*netnstest.NS
	conf   Config
	client *Client
	cmd    *exec.Cmd
	want   plan.Tunnel
	addr   netip.Addr
}

func newNode(t *testing.T, id string, host *netnstest.NS, addr string) *node {
	dir := t.TempDir()
	n := &node{t: t, id: id, host: host, slices: map[string]*netnstest.NS{}, addr: netip.MustParseAddr(addr),
		conf: Config{Socket: filepath.Join(dir, "tunnel.sock"), RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"), Port: fleet.DefaultPort}}
	n.client = NewClient(n.conf.Socket)
	n.start()
	t.Cleanup(n.kill)
	return n
}

func (n *node) start() {
	n.t.Helper()
	conf, err := json.Marshal(struct {
		Socket, RunDir, StateDir string
		Port                     uint16
	}{n.conf.Socket, n.conf.RunDir, n.conf.StateDir, n.conf.Port})
	if err != nil {
		n.t.Fatal(err)
	}
	n.cmd = n.host.Command(os.Args[0])
	n.cmd.Env = append(os.Environ(), processEnv+"="+string(conf))
	out, err := n.cmd.StderrPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			if testing.Verbose() {
				fmt.Printf("    %s: %s\n", n.id, s.Text())
			}
		}
	}()
	eventually(n.t, 5*time.Second, func() error {
		_, err := n.client.Status(n.t.Context())
		return err
	})
}

// kill ends the process without giving it a chance.
func (n *node) kill() {
	if n.cmd != nil {
		_ = n.cmd.Process.Kill()
		_ = n.cmd.Wait()
		n.cmd = nil
	}
}

func (n *node) endpoint() netip.AddrPort { return netip.AddrPortFrom(n.addr, n.conf.Port) }

// slice gives the node a slice's namespace with a pod's address in it.
func (n *node) slice(name, addr string) fleet.Key {
	n.t.Helper()
	ns := netnstest.New(n.t, "swtun-"+name)
	ns.IP("addr add " + addr + " dev lo")
	n.slices[name] = ns
	key, err := n.client.EnsureKey(n.t.Context(), name)
	if err != nil {
		n.t.Fatal(err)
	}
	n.want.Port = n.conf.Port
	n.want.Devices = append(n.want.Devices, plan.Device{Slice: name, NetNS: ns.Path, Link: plan.TunLink, MTU: 1420})
	return key
}

func (n *node) peer(slice string, p plan.Peer) {
	for i := range n.want.Devices {
		if n.want.Devices[i].Slice == slice {
			n.want.Devices[i].Peers = append(n.want.Devices[i].Peers, p)
		}
	}
}

// put applies what the node should be, and sets the routes that the agent would.
func (n *node) put() Result {
	n.t.Helper()
	r, err := n.client.Put(n.t.Context(), n.want)
	if err != nil || len(r.Problems) > 0 {
		n.t.Fatalf("%s: put: %v %+v", n.id, err, r.Problems)
	}
	for _, d := range n.want.Devices {
		for _, p := range d.Peers {
			for _, a := range p.Allowed {
				n.slices[d.Slice].IP("route replace " + a.String() + " dev " + d.Link)
			}
		}
	}
	return r
}

func (n *node) ping(slice, addr string) error {
	if _, err := n.slices[slice].Ping(netip.MustParseAddr(addr), time.Second); err != nil {
		return fmt.Errorf("%s: %w", n.id, err)
	}
	return nil
}

func (n *node) path(slice, peer string) string {
	st, err := n.client.Status(n.t.Context())
	if err != nil {
		return err.Error()
	}
	for _, d := range st.Devices {
		for _, p := range d.Peers {
			if d.Slice == slice && p.Peer == peer {
				return p.Path
			}
		}
	}
	return "no such peer"
}

func eventually(t *testing.T, limit time.Duration, f func() error) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		took := time.Since(start)
		if err == nil {
			return took
		}
		if took > limit {
			t.Fatalf("not within %v: %v", limit, err)
		}
		<-tick.C
	}
}

func prefix(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }

func direct(n *node) plan.Path { return plan.Path{Endpoint: n.endpoint()} }

func relayVia(n *node) plan.Path { return plan.Path{Endpoint: n.endpoint(), Relay: n.id} }
