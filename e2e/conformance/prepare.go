package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"

	"seaway.dev/seaway/e2e/stage"
)

// wanted are the images that the suite asks for. Their tools are Debian's; ours is only the packing.
var wanted = []string{"alpine/socat:1.7.4.4", "nicolaka/netshoot:v0.15"}

// tools are the programs in both images, by the path they have there. Small tools come from busybox; the shell does not,
// because busybox's takes its own nc before the one in the path.
var tools = map[string]string{"/usr/bin/socat": "/usr/bin/socat", "/bin/nc": "/bin/nc.openbsd", "/bin/sh": "/bin/dash"}

// applets are what the suite's scripts call of busybox.
var applets = []string{"grep", "awk", "tr", "sleep", "echo", "tail", "nslookup", "env", "cat", "ls", "ip", "wget", "ping"}

// images builds the suite's images and puts them into the nodes of its clusters.
func (r *run) images(ctx context.Context) error {
	root, err := os.MkdirTemp("", "seaway-conformance-root-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := os.Mkdir(filepath.Join(root, "bin"), 0o755); err != nil {
		return err
	}
	for _, a := range applets {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", a)); err != nil {
			return err
		}
	}
	files, err := r.files(ctx)
	if err != nil {
		return err
	}
	tar := filepath.Join(root, "..", filepath.Base(root)+".tar")
	defer os.Remove(tar)
	for _, name := range wanted {
		args := []string{"image", "build", "--name", name, "--from", root, "--entrypoint", `["/bin/env"]`, "-o", tar}
		for dst, src := range files {
			args = append(args, "--add", src+":"+dst)
		}
		if _, err := r.stage.Labctl(ctx, args...); err != nil {
			return fmt.Errorf("image %s: %w", name, err)
		}
		for _, c := range clusters {
			if _, err := r.stage.Labctl(ctx, "image", "import", tar, "--cluster", c); err != nil {
				return fmt.Errorf("image %s: %w", name, err)
			}
		}
	}
	return nil
}

// library finds the files that the dynamic linker names: "libc.so.6 => /lib/… (0x…)" or "/lib64/ld-… (0x…)".
var library = regexp.MustCompile(`(?m)(/\S+) \(0x`)

// files lists what is in the images: path there → path here.
func (r *run) files(ctx context.Context) (map[string]string, error) {
	out := map[string]string{"/bin/busybox": "/bin/busybox"}
	for dst, src := range tools {
		if _, err := os.Stat(src); err != nil {
			return nil, fmt.Errorf("%w: install Debian's packages socat, netcat-openbsd and busybox-static (make conformance does)", err)
		}
		out[dst] = src
		text, _, err := r.stage.Runner.Run(ctx, stage.Command{Args: []string{"ldd", src}})
		if err != nil {
			return nil, err
		}
		for _, m := range library.FindAllStringSubmatch(text, -1) {
			out[m[1]] = m[1]
		}
	}
	return out, nil
}

// kubeconfig joins the clusters' credentials into one file, each under its cluster's name.
func (r *run) kubeconfig(ctx context.Context) (string, error) {
	type named map[string]any
	all := map[string]any{"apiVersion": "v1", "kind": "Config", "current-context": clusters[0]}
	var cs, us, xs []named
	for _, name := range clusters {
		text, err := r.stage.Kubectl(ctx, name, "config", "view", "--raw", "--flatten", "-o", "json")
		if err != nil {
			return "", err
		}
		var one struct {
			Clusters []struct {
				Cluster map[string]any `json:"cluster"`
			} `json:"clusters"`
			Users []struct {
				User map[string]any `json:"user"`
			} `json:"users"`
		}
		if err := json.Unmarshal([]byte(text), &one); err != nil || len(one.Clusters) != 1 || len(one.Users) != 1 {
			return "", fmt.Errorf("credential of %s: want one cluster and one user, got %d and %d (%w)", name, len(one.Clusters), len(one.Users), err)
		}
		cs = append(cs, named{"name": name, "cluster": one.Clusters[0].Cluster})
		us = append(us, named{"name": name, "user": one.Users[0].User})
		xs = append(xs, named{"name": name, "context": named{"cluster": name, "user": name}})
	}
	all["clusters"], all["users"], all["contexts"] = cs, us, xs
	b, err := json.Marshal(all)
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp("", "seaway-conformance-*.kubeconfig") // readable by its owner alone
	if err != nil {
		return "", err
	}
	defer f.Close()
	_, err = f.Write(b)
	return f.Name(), err
}

// report is what the suite writes, as far as it is summed up.
type report struct {
	Passed int `json:"passed"`
	Total  int `json:"total"`
	Groups []struct {
		Name  string `json:"name"`
		Tests []struct {
			Desc    string `json:"desc"`
			Passed  bool   `json:"passed"`
			Skipped bool   `json:"skipped"`
			Message string `json:"message"`
		} `json:"tests"`
	} `json:"groups"`
}

// summary says how many specs passed, and which did not.
func summary(text []byte) (string, error) {
	var r report
	if err := yaml.Unmarshal(text, &r); err != nil {
		return "", fmt.Errorf("the suite's report: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "    %d of %d passed\n", r.Passed, r.Total)
	for _, g := range r.Groups {
		for _, t := range g.Tests {
			if !t.Passed {
				word := "FAILED"
				if t.Skipped {
					word = "skipped"
				}
				fmt.Fprintf(&b, "    %s (%s): %s%s\n", word, g.Name, t.Desc, t.Message)
			}
		}
	}
	return b.String(), nil
}
