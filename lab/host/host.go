// Package host checks that this host can run a lab, and makes it so.
package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"seaway.dev/seaway/lab/cgroup"
	"seaway.dev/seaway/lab/netns"
)

// MinDisk is the free space that a lab needs.
const MinDisk = 3 << 30

// CheckRoot says so if the caller is not root.
func CheckRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("a lab makes network namespaces and mounts, which needs root; run this with sudo")
	}
	return nil
}

// CheckDisk says so if a directory's file system is nearly full.
func CheckDisk(dir string) error {
	for ; dir != "/"; dir = filepath.Dir(dir) {
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			continue // not made yet
		}
		if free := s.Bavail * uint64(s.Bsize); free < MinDisk {
			return fmt.Errorf("%s has only %d MiB free, a lab needs %d; free some space or choose another place (--state, XDG_CACHE_HOME)",
				dir, free>>20, MinDisk>>20)
		}
		return nil
	}
	return nil
}

// CheckKernel tries what a lab needs of the kernel; the error lists all that is missing.
func CheckKernel() error {
	var errs []error
	if m := cgroup.Missing(); len(m) > 0 {
		errs = append(errs, fmt.Errorf("cgroup controllers %s are not to be had below /sys/fs/cgroup; "+
			"mount cgroup v2 there (Debian does so by itself), or v1 with a directory for each controller", strings.Join(m, ", ")))
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		errs = append(errs, errors.New("/dev/net/tun is missing (CONFIG_TUN); try `modprobe tun`"))
	}
	if b, err := os.ReadFile("/proc/filesystems"); err == nil && !bytes.Contains(b, []byte("\toverlay\n")) {
		errs = append(errs, errors.New("the kernel has no overlay file system (CONFIG_OVERLAY_FS); try `modprobe overlay`"))
	}
	if _, err := os.Stat("/proc/net/netfilter/nfnetlink_queue"); err != nil {
		errs = append(errs, errors.New("the kernel has no NFQUEUE (CONFIG_NETFILTER_NETLINK_QUEUE); try `modprobe nfnetlink_queue`"))
	}
	return errors.Join(append(errs, tryNetwork()...)...)
}

// tryNetwork makes a veth pair, a bridge and a table in a namespace of its own.
func tryNetwork() []error {
	name := fmt.Sprintf("seaway-check-%d", os.Getpid())
	if err := netns.Create(name); err != nil {
		return []error{err}
	}
	var errs []error
	check := func(what, mend string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("the kernel cannot make a %s (%w); %s", what, err, mend))
		}
	}
	err := netns.Do(name, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "a"
		v := netlink.NewVeth(attrs)
		v.PeerName = "b"
		check("veth pair", "it needs CONFIG_VETH, try `modprobe veth`", netlink.LinkAdd(v))
		attrs.Name = "br"
		check("bridge", "it needs CONFIG_BRIDGE, try `modprobe bridge`", netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
		out, err := exec.Command("nft", "add table inet x; add chain inet x c { type nat hook postrouting priority 0; }").CombinedOutput()
		if err != nil && !errors.Is(err, exec.ErrNotFound) {
			check("nftables NAT chain", "it needs CONFIG_NF_TABLES and CONFIG_NFT_NAT", fmt.Errorf("%s", bytes.TrimSpace(out)))
		}
		return nil
	})
	return append(errs, errors.Join(err, netns.Delete(name)))
}

// tools are the programs that a lab runs, and the Debian package of each.
var tools = map[string]string{
	"containerd": "containerd", "ctr": "containerd", "containerd-shim-runc-v2": "containerd", "runc": "runc",
	"/usr/lib/cni/bridge": "containernetworking-plugins", "/bin/busybox": "busybox-static", "nft": "nftables",
	"iptables": "iptables", "iptables-legacy-restore": "iptables", "ip6tables-legacy-restore": "iptables",
	"conntrack": "conntrack", "ipset": "ipset", "socat": "socat", "ip": "iproute2", "tc": "iproute2",
	"ethtool": "ethtool", "modprobe": "kmod", "mount": "mount", "nsenter": "util-linux", "openssl": "openssl",
}

// MissingPackages lists the Debian packages of programs that are not there.
func MissingPackages() []string {
	var missing []string
	for tool, pkg := range tools {
		_, err := exec.LookPath(tool)
		if err != nil && !slices.Contains(missing, pkg) {
			missing = append(missing, pkg)
		}
	}
	slices.Sort(missing)
	return missing
}

// Install installs Debian packages.
func Install(ctx context.Context, pkgs []string) error {
	if len(pkgs) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("these packages are missing and there is no apt-get to install them: %s", strings.Join(pkgs, " "))
	}
	for _, args := range [][]string{{"update", "-qq"}, append([]string{"install", "-y", "-qq", "--no-install-recommends"}, pkgs...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s\ninstall by hand: apt-get install %s", args[0], err, bytes.TrimSpace(out), strings.Join(pkgs, " "))
		}
	}
	return nil
}

// wanted are settings of the whole host. The kubelet insists on the first
// three; the others are too low for a dozen kubelets side by side.
var wanted = map[string]string{
	"vm.overcommit_memory": "1", "kernel.panic": "10", "kernel.panic_on_oops": "1",
	"fs.inotify.max_user_instances": "8192", "kernel.pid_max": "131072",
}

func sysctlPath(key string) string { return "/proc/sys/" + strings.ReplaceAll(key, ".", "/") }

// Sysctls reads the present values of what SetSysctls changes.
func Sysctls() (map[string]string, error) {
	now := map[string]string{}
	for k := range wanted {
		b, err := os.ReadFile(sysctlPath(k))
		if err != nil {
			return nil, err
		}
		now[k] = strings.TrimSpace(string(b))
	}
	return now, nil
}

// SetSysctls sets what a lab needs.
func SetSysctls() error { return write(wanted) }

// RestoreSysctls puts saved values back.
func RestoreSysctls(saved map[string]string) error { return write(saved) }

func write(values map[string]string) error {
	var errs []error
	for k, v := range values {
		if err := os.WriteFile(sysctlPath(k), []byte(v), 0o644); err != nil {
			errs = append(errs, fmt.Errorf("set %s=%s: %w", k, v, err))
		}
	}
	return errors.Join(errs...)
}
