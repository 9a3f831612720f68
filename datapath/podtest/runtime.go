package podtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/datapath/netnstest"
)

// Runtime is a fake container runtime that speaks CRI on a socket and mounts sandboxes' namespaces in a folder, as
// containerd does: first the file, then the namespace on it, then, when the sandbox runs, its own list.
type Runtime struct {
	Root   string // stands for the host's root
	Socket string // in it

	cri.UnimplementedRuntimeServiceServer
	t     testing.TB
	mu    sync.Mutex
	boxes map[string]*box
	down  bool
	calls int
}

type box struct {
	sandbox *cri.PodSandbox
	network cri.NamespaceMode
	info    map[string]string
	path    string
}

// NewRuntime starts a runtime that ends with the test.
func NewRuntime(t testing.TB) *Runtime {
	t.Helper()
	netnstest.NeedRoot(t)
	root := t.TempDir()
	r := &Runtime{Root: root, Socket: "/run/containerd/containerd.sock", t: t, boxes: map[string]*box{}}
	must(t, os.MkdirAll(filepath.Join(root, "run/containerd"), 0o755))
	must(t, os.MkdirAll(filepath.Join(root, "run/netns"), 0o755))
	must(t, os.MkdirAll(filepath.Join(root, "var"), 0o755))
	must(t, os.Symlink("/run", filepath.Join(root, "var/run"))) // absolute, as on real hosts
	l, err := net.Listen("unix", filepath.Join(root, r.Socket))
	must(t, err)
	srv := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(srv, r)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		<-done
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, b := range r.boxes {
			_ = netns.Remove(b.path)
		}
	})
	return r
}

// Start makes a sandbox for a pod around a namespace. Options change what the runtime tells of it.
func (r *Runtime) Start(uid, id string, ns *netns.NS, options ...func(*cri.PodSandbox, map[string]any)) {
	r.t.Helper()
	name := "cni-" + id
	path := filepath.Join(r.Root, "run/netns", name)
	f, err := os.Create(path)
	must(r.t, err)
	_ = f.Close()
	must(r.t, unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.FD()), path, "none", unix.MS_BIND, ""))
	b := &box{path: path, sandbox: &cri.PodSandbox{
		Id: id, Metadata: &cri.PodSandboxMetadata{Name: uid, Namespace: "shop", Uid: uid},
		State: cri.PodSandboxState_SANDBOX_READY, CreatedAt: time.Now().UnixNano(),
	}}
	info := map[string]any{
		"pid": 0, "processStatus": "running", "netNamespaceClosed": false, "runtimeHandler": "", "runtimeType": "io.containerd.runc.v2",
		"runtimeSpec": map[string]any{"linux": map[string]any{"namespaces": []any{
			map[string]any{"type": "pid"}, map[string]any{"type": "network", "path": "/var/run/netns/" + name},
		}}},
	}
	for _, o := range options {
		o(b.sandbox, info)
	}
	if info["hostNetwork"] == true {
		b.network = cri.NamespaceMode_NODE
	}
	raw, err := json.Marshal(info)
	must(r.t, err)
	b.info = map[string]string{"info": string(raw)}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.boxes[id] = b
}

// Stop ends a sandbox: the runtime unmounts its namespace and forgets it.
func (r *Runtime) Stop(id string) {
	r.t.Helper()
	r.mu.Lock()
	b := r.boxes[id]
	delete(r.boxes, id)
	r.mu.Unlock()
	must(r.t, netns.Remove(b.path))
}

// SetDown makes every call fail, as while the runtime restarts.
func (r *Runtime) SetDown(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

// Calls counts the calls so far.
func (r *Runtime) Calls() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls
}

// ListPodSandbox implements CRI.
func (r *Runtime) ListPodSandbox(context.Context, *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if r.down {
		return nil, fmt.Errorf("the runtime restarts")
	}
	resp := &cri.ListPodSandboxResponse{}
	for _, b := range r.boxes {
		resp.Items = append(resp.Items, b.sandbox)
	}
	return resp, nil
}

// PodSandboxStatus implements CRI.
func (r *Runtime) PodSandboxStatus(_ context.Context, req *cri.PodSandboxStatusRequest) (*cri.PodSandboxStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	b := r.boxes[req.PodSandboxId]
	if r.down || b == nil {
		return nil, fmt.Errorf("no sandbox %s", req.PodSandboxId)
	}
	return &cri.PodSandboxStatusResponse{Info: b.info, Status: &cri.PodSandboxStatus{
		Id: b.sandbox.Id, State: b.sandbox.State, Metadata: b.sandbox.Metadata, CreatedAt: b.sandbox.CreatedAt,
		Linux: &cri.LinuxPodSandboxStatus{Namespaces: &cri.Namespace{Options: &cri.NamespaceOption{Network: b.network}}},
	}}, nil
}
