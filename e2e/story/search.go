package story

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// keyDir is where nodes keep their private keys, a file per slice.
const keyDir = "/var/lib/seaway/keys"

// keys prints NODE SLICE KEY for every private key on the nodes of some clusters.
func keys(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) != 1 {
		return "", misused("want clusters")
	}
	l, err := p.stage.Layout(ctx)
	if err != nil {
		return "", err
	}
	return eachOf(args[0], func(name string) (string, error) {
		c, err := l.Cluster(name)
		if err != nil {
			return "", misused("%v", err)
		}
		var b strings.Builder
		for _, n := range c.Nodes {
			out, err := p.stage.Machine(ctx, n, "sh", "-c", "cd "+keyDir+" 2>/dev/null && grep -H . * || true")
			if err != nil {
				return "", err
			}
			for line := range strings.Lines(out) {
				if slice, key, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
					fmt.Fprintf(&b, "%s %s %s\n", n, slice, key)
				}
			}
		}
		return b.String(), nil
	})
}

// search looks for what a line prints in everything that a cluster stores.
func search(p *play, ctx context.Context, args []string) (string, error) {
	if len(args) < 3 || args[1] != "for" {
		return "", misused("want a cluster, for, and a line")
	}
	out, err := p.do(ctx, args[2:])
	if err != nil {
		return out, err
	}
	needles := forms(out)
	if len(needles) == 0 {
		return "", fmt.Errorf("nothing to search for in this:\n%s", out)
	}
	l, err := p.stage.Layout(ctx)
	if err != nil {
		return "", err
	}
	c, err := l.Cluster(args[0])
	if err != nil {
		return "", misused("%v", err)
	}
	found, err := p.searchObjects(ctx, c.Name, needles)
	if err != nil {
		return "", err
	}
	files := 0
	for machine, pid := range c.PIDs {
		in, n := searchFiles(fmt.Sprintf("/proc/%d/root", pid), needles)
		files += n
		for _, f := range in {
			found = append(found, machine+":"+f)
		}
	}
	var b strings.Builder
	for _, f := range found {
		fmt.Fprintln(&b, "found in", f)
	}
	fmt.Fprintf(&b, "searched for %d forms in all objects and %d files: found=%d\n", len(needles), files, len(found))
	return b.String(), nil
}

// forms are the ways in which the keys that a text mentions could be written: as they are, in hexadecimal, as bytes.
func forms(text string) [][]byte {
	var out [][]byte
	for _, w := range strings.Fields(text) {
		raw, err := base64.StdEncoding.DecodeString(w)
		if err != nil || len(raw) < 16 {
			continue
		}
		out = append(out, []byte(w), raw, []byte(hex.EncodeToString(raw)), []byte(base64.RawURLEncoding.EncodeToString(raw)))
	}
	return out
}

func matches(b []byte, needles [][]byte) bool {
	return slices.ContainsFunc(needles, func(n []byte) bool { return bytes.Contains(b, n) })
}

func (p *play) searchObjects(ctx context.Context, cluster string, needles [][]byte) ([]string, error) {
	out, err := p.stage.Kubectl(ctx, cluster, "api-resources", "--verbs=list", "-o", "name")
	if err != nil {
		return nil, err
	}
	kinds := slices.DeleteFunc(strings.Fields(out), func(k string) bool { return strings.HasSuffix(k, ".metrics.k8s.io") || k == "componentstatuses" })
	out, err = p.stage.Kubectl(ctx, cluster, "get", strings.Join(kinds, ","), "-A", "-o", "json")
	if err != nil {
		return nil, err
	}
	return searchObjectList(out, needles)
}

func searchObjectList(text string, needles [][]byte) ([]string, error) {
	var list struct{ Items []map[string]any }
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	var found []string
	for _, o := range list.Items {
		meta, _ := o["metadata"].(map[string]any)
		if anyString(o, func(s string) bool {
			raw, _ := base64.StdEncoding.DecodeString(s) // a Secret's and a ConfigMap's binary values
			return matches([]byte(s), needles) || matches(raw, needles)
		}) {
			found = append(found, fmt.Sprintf("%v %s/%v", o["kind"], orDash(str(meta["namespace"])), meta["name"]))
		}
	}
	return found, nil
}

func anyString(v any, f func(string) bool) bool {
	switch v := v.(type) {
	case string:
		return f(v)
	case []any:
		return slices.ContainsFunc(v, func(e any) bool { return anyString(e, f) })
	case map[string]any:
		for k, e := range v {
			if f(k) || anyString(e, f) {
				return true
			}
		}
	}
	return false
}

// searchFiles reads every file where programs keep things, the API server's store among them.
func searchFiles(root string, needles [][]byte) (found []string, files int) {
	const most = 512 << 20
	for _, dir := range []string{"/etc", "/run", "/var/lib", "/var/log"} {
		filepath.WalkDir(root+dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return nil // gone meanwhile
			}
			in := strings.TrimPrefix(path, root)
			if e.IsDir() && (strings.HasPrefix(in, "/var/lib/containerd/io.containerd.content") || strings.HasPrefix(in, "/var/lib/containerd/io.containerd.snapshotter") ||
				in == "/var/lib/apt" || in == "/var/lib/dpkg" || in == "/var/lib/seaway-lab" || in == "/run/containerd/io.containerd.runtime.v2.task") {
				return fs.SkipDir
			}
			info, err := e.Info()
			if err != nil || !info.Mode().IsRegular() || info.Size() > most {
				return nil
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return nil
			}
			files++
			if matches(b, needles) {
				found = append(found, in)
			}
			return nil
		})
	}
	return found, files
}
