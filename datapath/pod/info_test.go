package pod

import (
	"path/filepath"
	"testing"
)

// containerd16 is what containerd 1.6 tells, shortened.
const containerd16 = `{"pid":4242,"processStatus":"running","netNamespaceClosed":false,"image":"pause:3.9","snapshotKey":"x",
"snapshotter":"overlayfs","runtimeHandler":"","runtimeType":"io.containerd.runc.v2","runtimeOptions":{},
"config":{"metadata":{"name":"web-0","uid":"u","namespace":"shop"}},
"runtimeSpec":{"ociVersion":"1.0.2","linux":{"cgroupsPath":"kubepods","namespaces":[{"type":"pid"},{"type":"ipc"},
{"type":"uts"},{"type":"mount"},{"type":"network","path":"/var/run/netns/cni-0a1b"}]}}}`

// crio is what CRI-O tells, shortened.
const crio = `{"image":"pause","pid":77,"runtimeSpec":{"linux":{"namespaces":[{"type":"network","path":"/var/run/netns/6d"}]}}}`

func TestParseInfo(t *testing.T) {
	for _, c := range []struct {
		json, path string
		pid        int
	}{{containerd16, "/var/run/netns/cni-0a1b", 4242}, {crio, "/var/run/netns/6d", 77}} {
		i, err := parseInfo(c.json)
		if err != nil || i.netns() != c.path || i.Pid != c.pid {
			t.Errorf("%+v, %v; want %s and process %d", i, err, c.path, c.pid)
		}
	}
}

func FuzzInfo(f *testing.F) {
	f.Add(containerd16)
	f.Add(crio)
	f.Add(`{"pid":-1}`)
	f.Add(`{"runtimeSpec":{"linux":{"namespaces":[{"type":"network","path":"relative"}]}}}`)
	f.Fuzz(func(t *testing.T, s string) {
		i, err := parseInfo(s)
		if err == nil && (i.Pid < 0 || i.netns() != "" && !filepath.IsAbs(i.netns())) {
			t.Errorf("accepted %+v", i)
		}
	})
}
