package boot

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"text/template"
	"time"

	"seaway.dev/seaway/lab/api"
	"seaway.dev/seaway/lab/cgroup"
	"seaway.dev/seaway/lab/machine"
)

//go:embed files
var files embed.FS

// nodeFiles are the node's configuration files, by the path they get.
var nodeFiles = map[string]string{
	configDir + "/containerd.toml":   "containerd.toml",
	configDir + "/kubelet.yaml":      "kubelet.yaml",
	configDir + "/kube-proxy.yaml":   "kube-proxy.yaml",
	"/etc/cni/net.d/10-lab.conflist": "cni.conflist",
}

type nodeValues struct {
	machine.Spec
	Kubernetes, CgroupRoot string
}

// render fills in one configuration file.
func render(name string, s machine.Spec) ([]byte, error) {
	t, err := template.New(name).Option("missingkey=error").ParseFS(files, "files/"+name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, nodeValues{Spec: s, Kubernetes: kubernetesDir, CgroupRoot: cgroup.Path(s.Machine.Name)})
	return b.Bytes(), err
}

// node starts containerd and, when the API answers, the kubelet and kube-proxy.
func node(ctx context.Context, s machine.Spec, sup *supervisor) error {
	for path, name := range nodeFiles {
		b, err := render(name, s)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			return err
		}
	}
	// Addresses that pods of an earlier boot held are free again.
	if err := os.RemoveAll("/var/lib/cni"); err != nil {
		return err
	}
	containerd, err := lookPath("containerd")
	if err != nil {
		return err
	}
	sup.keep(ctx, daemon{name: "containerd", argv: []string{containerd, "-c", configDir + "/containerd.toml"}})
	go func() {
		awaitAPI(ctx, s.Cluster.Server(), s.Machine.Name, time.Minute, sup.log)
		awaitContainerd(ctx)
		name := s.Machine.Name
		sup.keep(ctx, bin("kubelet", "--config="+configDir+"/kubelet.yaml", "--kubeconfig="+kubernetesDir+"/"+name+".kubeconfig",
			"--hostname-override="+name, "--node-ip="+s.Machine.IP.String(),
			fmt.Sprintf("--node-labels=topology.kubernetes.io/region=%[1]s,topology.kubernetes.io/zone=%[1]s-a", s.Cluster.Name)))
		sup.keep(ctx, bin("kube-proxy", "--config="+configDir+"/kube-proxy.yaml"))
	}()
	return nil
}

func awaitContainerd(ctx context.Context) {
	_ = api.Poll(ctx, 50*time.Millisecond, func(context.Context) (bool, error) {
		c, err := net.Dial("unix", "/run/containerd/containerd.sock")
		if err == nil {
			_ = c.Close()
		}
		return err == nil, err
	})
}

func lookPath(name string) (string, error) {
	for _, d := range []string{"/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"} {
		if p := filepath.Join(d, name); isFile(p) {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is not installed; run `seaway-lab setup`", name)
}

func isFile(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular()
}
