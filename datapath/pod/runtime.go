package pod

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// runtimeTimeout bounds a call; a healthy runtime answers in a few milliseconds.
	runtimeTimeout = 2 * time.Second
	// maxMessage is the kubelet's own limit for CRI messages, bytes.
	maxMessage = 16 << 20
)

// runtime is a connection to a container runtime.
type runtime struct {
	socket string
	conn   *grpc.ClientConn
	api    cri.RuntimeServiceClient
}

// dial connects to the first runtime whose socket exists, here or under the host's root.
func dial(cfg Config) (*runtime, error) {
	for _, s := range cfg.Sockets {
		for _, path := range []string{s, filepath.Join(cfg.Root, s)} {
			if st, err := os.Stat(path); err != nil || st.Mode()&os.ModeSocket == 0 {
				continue
			}
			conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)), grpc.WithDisableServiceConfig(),
				grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10))
			if err != nil {
				return nil, fmt.Errorf("connect to the container runtime at %s: %w", path, err)
			}
			return &runtime{socket: path, conn: conn, api: cri.NewRuntimeServiceClient(conn)}, nil
		}
	}
	return nil, fmt.Errorf("no container runtime's socket at any of %v: name it with --cri", cfg.Sockets)
}

func (r *runtime) close() error { return r.conn.Close() }

func (r *runtime) sandboxes(ctx context.Context) ([]*cri.PodSandbox, error) {
	ctx, cancel := context.WithTimeout(ctx, runtimeTimeout)
	defer cancel()
	resp, err := r.api.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{
		State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY},
	}})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes at %s: %w", r.socket, err)
	}
	return resp.Items, nil
}

type status struct {
	hostNetwork bool
	info        info
}

func (r *runtime) status(ctx context.Context, id string) (status, error) {
	ctx, cancel := context.WithTimeout(ctx, runtimeTimeout)
	defer cancel()
	resp, err := r.api.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		return status{}, fmt.Errorf("ask %s about sandbox %.13s: %w", r.socket, id, err)
	}
	st := status{hostNetwork: resp.GetStatus().GetLinux().GetNamespaces().GetOptions().GetNetwork() == cri.NamespaceMode_NODE}
	if st.hostNetwork {
		return st, nil
	}
	if st.info, err = parseInfo(resp.Info["info"]); err != nil {
		return status{}, fmt.Errorf("sandbox %.13s: %w", id, err)
	}
	if st.info.RuntimeHandler == "" {
		st.info.RuntimeHandler = resp.GetStatus().GetRuntimeHandler()
	}
	return st, nil
}

// info is what containerd and CRI-O tell of a sandbox beyond the standard: the JSON under "info" in a verbose status.
type info struct {
	Pid            int    `json:"pid"`
	RuntimeHandler string `json:"runtimeHandler"`
	RuntimeType    string `json:"runtimeType"`
	Closed         bool   `json:"netNamespaceClosed"`
	Spec           struct {
		Linux struct {
			Namespaces []struct {
				Type string `json:"type"`
				Path string `json:"path"`
			} `json:"namespaces"`
		} `json:"linux"`
	} `json:"runtimeSpec"`
}

// netns is the path of the network namespace on the host, "" if the runtime does not say.
func (i info) netns() string {
	for _, n := range i.Spec.Linux.Namespaces {
		if n.Type == "network" {
			return n.Path
		}
	}
	return ""
}

func parseInfo(s string) (info, error) {
	var i info
	if s == "" {
		return i, errors.New("the runtime gives no verbose status: is it containerd or CRI-O?")
	}
	if err := json.Unmarshal([]byte(s), &i); err != nil {
		return info{}, fmt.Errorf("read the runtime's verbose status: %w", err)
	}
	if i.Closed {
		return info{}, errors.New("the runtime has closed the sandbox's network namespace already")
	}
	if p := i.netns(); i.Pid < 0 || p != "" && !filepath.IsAbs(p) {
		return info{}, fmt.Errorf("the runtime's verbose status makes no sense: process %d, namespace %.100q", i.Pid, p)
	}
	return i, nil
}
