package tunnel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"seaway.dev/seaway/datapath/wg"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// process is a tunnel process in the test's own, its devices on channels instead of links: no root needed.
type process struct {
	*Client
	conf Config
	log  *bytes.Buffer
	stop func()
}

func startProcess(t *testing.T, conf Config) *process {
	t.Helper()
	if conf.Socket == "" {
		dir := t.TempDir()
		conf = Config{Socket: filepath.Join(dir, "sock"), RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state")}
		for _, d := range []string{conf.RunDir, conf.StateDir} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := &process{Client: NewClient(conf.Socket), conf: conf, log: &bytes.Buffer{}}
	conf.Log = slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := newServer(conf, func(l *slog.Logger) wg.Driver {
		return wg.NewUserspaceOn(l, func(d plan.Device) (tun.Device, error) {
			if strings.Contains(d.NetNS, "missing") {
				return nil, fs.ErrNotExist
			}
			return tuntest.NewChannelTUN().TUN(), nil
		})
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	<-s.ready
	stopped := false
	p.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error("the process ended with ", err)
		}
	}
	t.Cleanup(p.stop)
	return p
}

func someKey(b byte) fleet.Key { return fleet.Key(bytes.Repeat([]byte{b}, 32)) }

func example() plan.Tunnel {
	return plan.Tunnel{
		Devices: []plan.Device{{Slice: "pay", NetNS: "/run/seaway/netns/pay", Link: "wg0", MTU: 1420, Peers: []plan.Peer{{
			ID: "c2/b", Key: someKey(2), Allowed: prefix("10.77.2.0/24"), Keepalive: 25,
			Paths: []plan.Path{{Endpoint: netip.MustParseAddrPort("127.0.0.1:9")}}}}}},
		Relay: []plan.Target{{Key: someKey(3), ID: "c1/n", Slice: "pay", Endpoints: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}}},
	}
}

func TestPutTwiceChangesNothing(t *testing.T) {
	p := startProcess(t, Config{})
	r, err := p.Put(t.Context(), example())
	if err != nil || r.Changes == 0 || len(r.Problems) > 0 {
		t.Fatalf("first: %+v, %v", r, err)
	}
	if r, err = p.Put(t.Context(), example()); err != nil || r.Changes != 0 {
		t.Errorf("second: %+v, %v; want no changes", r, err)
	}
	st, err := p.Status(t.Context())
	if err != nil || st.Driver != "userspace" || st.Port == 0 || len(st.Devices) != 1 || len(st.Devices[0].Peers) != 1 ||
		st.Devices[0].Peers[0].Path != "none" || st.Relay.Targets != 1 || st.Devices[0].Key != st.Keys["pay"] {
		t.Errorf("status: %+v, %v", st, err)
	}
	empty := plan.Tunnel{}
	if r, err := p.Put(t.Context(), empty); err != nil || r.Changes == 0 {
		t.Errorf("nothing wanted: %+v, %v", r, err)
	}
	if st, _ := p.Status(t.Context()); len(st.Devices) != 0 || st.Relay.Targets != 0 {
		t.Errorf("nothing wanted, but there is %+v", st)
	}
}

// TestInvalid: whatever is wrong is refused as a whole, by a message that names it.
func TestInvalid(t *testing.T) {
	p := startProcess(t, Config{})
	if _, err := p.Put(t.Context(), example()); err != nil {
		t.Fatal(err)
	}
	dev := func(f func(*plan.Device)) func(*plan.Tunnel) { return func(t *plan.Tunnel) { f(&t.Devices[0]) } }
	peer := func(f func(*plan.Peer)) func(*plan.Tunnel) {
		return dev(func(d *plan.Device) { f(&d.Peers[0]) })
	}
	for want, change := range map[string]func(*plan.Tunnel){
		"slice: want a DNS label":        dev(func(d *plan.Device) { d.Slice = "../etc" }),
		"netns \"x\": want":              dev(func(d *plan.Device) { d.NetNS = "x" }),
		"netns \"/a/../b\": want":        dev(func(d *plan.Device) { d.NetNS = "/a/../b" }),
		"link \"a/b\": want":             dev(func(d *plan.Device) { d.Link = "a/b" }),
		"mtu 0: want":                    dev(func(d *plan.Device) { d.MTU = 0 }),
		"device \"pay\": is there twice": func(t *plan.Tunnel) { t.Devices = append(t.Devices, t.Devices[0]) },
		"has no id":                      peer(func(p *plan.Peer) { p.ID = "" }),
		"has no key":                     peer(func(p *plan.Peer) { p.Key = fleet.Key{} }),
		"keepalive -1":                   peer(func(p *plan.Peer) { p.Keepalive = -1 }),
		"without host bits":              peer(func(p *plan.Peer) { p.Allowed = prefix("10.77.2.1/24") }),
		"is peer \"c2/b\"'s already": dev(func(d *plan.Device) {
			o := d.Peers[0]
			o.ID, o.Key = "c3/c", someKey(9)
			d.Peers = append(d.Peers, o)
		}),
		"endpoint 0.0.0.0:9":     peer(func(p *plan.Peer) { p.Paths[0].Endpoint = netip.MustParseAddrPort("0.0.0.0:9") }),
		"endpoint 10.0.0.1:0":    peer(func(p *plan.Peer) { p.Paths[0].Endpoint = netip.MustParseAddrPort("10.0.0.1:0") }),
		"both endpoints and":     func(t *plan.Tunnel) { t.Relay[0].Management = someKey(4) },
		"relay to \"c1/n\": key": func(t *plan.Tunnel) { t.Relay = append(t.Relay, t.Relay[0]) },
	} {
		bad := example()
		bad.Devices = append(bad.Devices[:0:0], bad.Devices...)
		change(&bad)
		_, err := p.Put(t.Context(), bad)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	raw := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", p.conf.Socket) }}}
	for _, body := range []string{"", "{", "[]", `{"prot":1}`, `{"port":70000}`, `{"port":"x"}`, `{} {}`, `{"devices":[{"slice":"pay","key":"x"}]}`} {
		req, _ := http.NewRequest(http.MethodPut, "http://x/v1/tunnel", strings.NewReader(body))
		res, err := raw.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), "invalid") {
			t.Errorf("%q: %d %s", body, res.StatusCode, text)
		}
	}
	if r, err := p.Put(t.Context(), example()); err != nil || r.Changes != 0 {
		t.Errorf("after all that the good value changed %d things (%v): something bad was applied", r.Changes, err)
	}
}

// TestProblems: what cannot be done yet is said, does not hinder the rest, and is done when it can be.
func TestProblems(t *testing.T) {
	p := startProcess(t, Config{})
	want := example()
	want.Devices = append(want.Devices, plan.Device{Slice: "lost", NetNS: "/missing", Link: "wg0", MTU: 1420})
	r, err := p.Put(t.Context(), want)
	if err != nil || len(r.Problems) != 1 || r.Problems[0].Where != "slice lost" || r.Problems[0].Reason != "TunnelDown" {
		t.Fatalf("%+v, %v", r, err)
	}
	if st, err := p.Status(t.Context()); err != nil || len(st.Devices[0].Peers) != 1 || len(st.Problems) != 1 {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestFullDisk: what cannot be written down is done nevertheless, said, and written down as soon as there is room.
func TestFullDisk(t *testing.T) {
	p := startProcess(t, Config{})
	obstacle := filepath.Join(p.conf.RunDir, wantFile+".new")
	if err := os.Mkdir(obstacle, 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := p.Put(t.Context(), example())
	if err != nil || r.Changes == 0 || len(r.Problems) != 1 || r.Problems[0].Reason != "StateNotSaved" {
		t.Fatalf("%+v, %v", r, err)
	}
	if st, err := p.Status(t.Context()); err != nil || len(st.Devices) != 1 || len(st.Problems) != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func() error {
		if st, err := p.Status(t.Context()); err != nil || len(st.Problems) > 0 {
			return fmt.Errorf("%+v, %v", st.Problems, err)
		}
		_, err := os.Stat(filepath.Join(p.conf.RunDir, wantFile))
		return err
	})
}

// TestKeysStayHome: the private keys are in files for root only, survive a restart, appear in no answer and no log
// line, and are gone after a purge.
func TestKeysStayHome(t *testing.T) {
	p := startProcess(t, Config{})
	key, err := p.EnsureKey(t.Context(), "pay")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(p.conf.StateDir, "keys", "pay")
	private, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{file, p.conf.Socket} {
		if fi, err := os.Stat(f); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v: want 0600", f, fi.Mode(), err)
		}
	}
	if _, err := p.Put(t.Context(), example()); err != nil {
		t.Fatal(err)
	}
	st, err := p.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	said, _ := json.Marshal(st)
	p.stop()
	secret := strings.TrimSpace(string(private))
	for name, text := range map[string]string{"status": string(said), "log": p.log.String()} {
		if strings.Contains(text, secret) {
			t.Errorf("the %s shows the private key", name)
		}
	}
	for _, f := range []string{wantFile, sessionsFile} {
		if data, _ := os.ReadFile(filepath.Join(p.conf.RunDir, f)); bytes.Contains(data, []byte(secret)) {
			t.Errorf("%s has the private key", f)
		}
	}
	again := startProcess(t, p.conf)
	if k, err := again.EnsureKey(t.Context(), "pay"); err != nil || k != key {
		t.Errorf("after a restart the key is %v, %v; want %v", k, err, key)
	}
	if st, err := again.Status(t.Context()); err != nil || len(st.Devices) != 1 {
		t.Errorf("after a restart: %+v, %v; want the device back without being told", st, err)
	}
	if err := again.RemoveKey(t.Context(), "pay"); !errors.Is(err, ErrInvalid) {
		t.Errorf("removing the key of a device: %v", err)
	}
	if err := again.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after a purge the key is there: %v", err)
	}
	if left, _ := os.ReadDir(p.conf.RunDir); len(left) != 0 {
		t.Errorf("after a purge RunDir has %v", left)
	}
}

func TestDamagedKey(t *testing.T) {
	p := startProcess(t, Config{})
	dir := filepath.Join(p.conf.StateDir, "keys")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pay"), []byte("c2VjcmV0"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.EnsureKey(t.Context(), "pay"); err == nil || !strings.Contains(err.Error(), "damaged") || strings.Contains(err.Error(), "c2Vj") {
		t.Errorf("got %v", err)
	}
	if _, err := p.EnsureKey(t.Context(), "a/b"); err == nil {
		t.Error("a slice named like a path")
	}
	if r, err := p.Put(t.Context(), example()); err != nil || len(r.Problems) != 1 || r.Problems[0].Reason != "KeyUnusable" {
		t.Errorf("%+v, %v", r, err)
	}
}

// FuzzTunnelConfig: any bytes are either refused or a value that survives a round trip.
func FuzzTunnelConfig(f *testing.F) {
	data, err := json.Marshal(example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"port":1,"devices":[{"slice":"a","netns":"","link":"wg0","mtu":1280,"addrs":["fd00::1/128"]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := decode(data)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("refused without saying so: %v", err)
			}
			return
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(again); err != nil {
			t.Fatalf("accepted, but not what it was read as: %v", err)
		}
	})
}
