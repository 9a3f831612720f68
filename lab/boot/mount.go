package boot

import (
	"bufio"
	"crypto/md5"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/lab/machine"
)

// Places inside a machine.
const (
	kubernetesDir = "/etc/kubernetes"
	logDir        = "/var/log/lab"
	binDir        = "/run/lab/bin"
	configDir     = "/etc/lab"
)

// mountAll turns the host's file system into the machine's: /etc and /opt are
// the host's with changes of its own on top, /var and /run are its own, the
// rest is the host's. Afterwards every daemon is at its default paths.
func mountAll(s machine.Spec) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// What must stay visible may lie below something that is covered next, so
	// each is picked up first and put down at its new place afterwards.
	var m mounter
	disk := filepath.Join(s.Dir, "disk")
	pki, bin, logs, varTree := m.pick(s.PKI), m.pick(s.Bin), m.pick(filepath.Join(s.Dir, "log")), m.pick(filepath.Join(disk, "var"))
	cgroups := m.pick("/sys/fs/cgroup")
	m.overlay("/etc", disk)
	m.overlay("/opt", disk)
	m.mount("proc", "/proc")
	m.mount("sysfs", "/sys") // so that /sys/class/net is this machine's
	m.put(cgroups, "/sys/fs/cgroup")
	_ = unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH) // hybrid mode confuses container runtimes
	m.forgetNetns()
	m.put(varTree, "/var")
	m.mount("tmpfs", "/run")
	m.dirs("/run/netns", "/run/lock", "/run/containerd", binDir, "/var/lib/containerd", "/var/lib/kubelet", "/var/lib/cni",
		"/var/lib/etcd", "/var/log/pods", "/var/log/containers", "/var/tmp", "/var/cache", logDir, kubernetesDir, configDir, "/etc/cni/net.d", "/opt/cni/bin")
	m.link("/run", "/var/run")
	m.link("/run/lock", "/var/lock")
	m.put(pki, kubernetesDir)
	m.put(bin, binDir)
	m.put(logs, logDir)
	// Mounts that pods leave behind (mountPropagation: Bidirectional) must spread.
	if m.err == nil {
		m.err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
	}
	m.identity(s)
	return m.err
}

// mounter keeps the first error.
type mounter struct{ err error }

func (m *mounter) fail(what string, err error) {
	if m.err == nil && err != nil {
		m.err = fmt.Errorf("%s: %w", what, err)
	}
}

// pick takes a detached copy of a tree of mounts.
func (m *mounter) pick(path string) int {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	m.fail("open "+path, err)
	return fd
}

func (m *mounter) put(fd int, path string) {
	if m.err != nil {
		return
	}
	m.fail("mount "+path, unix.MoveMount(fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH))
	_ = unix.Close(fd)
}

func (m *mounter) mount(kind, path string) {
	data := ""
	if kind == "tmpfs" {
		data = "mode=755"
	}
	if m.err == nil {
		m.fail("mount "+path, unix.Mount(kind, path, kind, 0, data))
	}
}

func (m *mounter) overlay(path, disk string) {
	if m.err != nil {
		return
	}
	upper := filepath.Join(disk, path)
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s.work", path, upper, upper)
	m.fail("overlay "+path, unix.Mount("overlay", path, "overlay", 0, data))
}

func (m *mounter) dirs(paths ...string) {
	for _, p := range paths {
		if m.err == nil {
			m.fail("make "+p, os.MkdirAll(p, 0o755))
		}
	}
}

func (m *mounter) link(target, path string) {
	if err := os.Symlink(target, path); !errors.Is(err, fs.ErrExist) {
		m.fail("link "+path, err)
	}
}

// forgetNetns lets go of the named network namespaces that this mount namespace
// inherited; else the machine would keep its neighbours' alive after their end.
func (m *mounter) forgetNetns() {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		m.fail("mountinfo", err)
		return
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if f := strings.Fields(s.Text()); len(f) > 4 && strings.HasPrefix(f[4], "/run/netns/") {
			_ = unix.Unmount(f[4], unix.MNT_DETACH)
		}
	}
}

// identity gives the machine its name.
func (m *mounter) identity(s machine.Spec) {
	if m.err != nil {
		return
	}
	name := s.Machine.Name
	m.fail("hostname", unix.Sethostname([]byte(name)))
	hosts := fmt.Sprintf("127.0.0.1 localhost\n::1 localhost\n%s %s\n", s.Machine.IP, name)
	m.write("/etc/hosts", hosts)
	m.write("/etc/hostname", name+"\n")
	m.write("/etc/resolv.conf", "# this machine has no resolver of its own\n")
	m.write("/etc/machine-id", fmt.Sprintf("%x\n", md5.Sum([]byte("seaway-lab "+name))))
}

// write replaces a file, also if it is a symlink to somewhere else.
func (m *mounter) write(path, text string) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.fail("write "+path, err)
	}
	m.fail("write "+path, os.WriteFile(path, []byte(text), 0o644))
}
