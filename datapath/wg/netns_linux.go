package wg

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"seaway.dev/seaway/slice/plan"
)

// nsID tells one network namespace from another: device and inode of its file.
type nsID struct{ dev, ino uint64 }

// namespace opens the network namespace at path; "" is the process's own.
func namespace(path string) (netns.NsHandle, nsID, error) {
	if path == "" {
		path = "/proc/self/ns/net"
	}
	h, err := netns.GetFromPath(path)
	if err != nil {
		return h, nsID{}, fmt.Errorf("network namespace %s: %w; the agent makes it", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(h), &st); err != nil {
		h.Close()
		return h, nsID{}, fmt.Errorf("network namespace %s: %w", path, err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(h), &fs); err == nil && fs.Type != unix.NSFS_MAGIC && fs.Type != unix.PROC_SUPER_MAGIC {
		h.Close()
		return h, nsID{}, fmt.Errorf("network namespace %s: the file is not a namespace (yet); the agent mounts it", path)
	}
	return h, nsID{uint64(st.Dev), st.Ino}, nil //nolint:unconvert // Dev's type differs between architectures
}

// inside runs f on a thread that has entered a network namespace.
func inside(ns netns.NsHandle, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := netns.Set(ns); err != nil {
			done <- fmt.Errorf("enter a network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// openTUN opens the TUN link of that name in a namespace, making it if it is not there. It persists.
func openTUN(ns netns.NsHandle, name string) (fd int, err error) {
	err = inside(ns, func() error {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open /dev/net/tun: %w; load the tun module and give the process NET_ADMIN", err)
		}
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return fmt.Errorf("link name %q: %w", name, err)
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			if errors.Is(err, unix.EBUSY) {
				err = errors.New("another process holds it")
			}
			unix.Close(fd)
			return fmt.Errorf("link %s: %w", name, err)
		}
		if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
			unix.Close(fd)
			return fmt.Errorf("link %s: make it outlive the process: %w", name, err)
		}
		return nil
	})
	return fd, err
}

// removeLink deletes a link in a namespace. No link, no error.
func removeLink(path, name string) error {
	ns, _, err := namespace(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = h.LinkDel(l)
	}
	if err != nil {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

// dressLink sets what want says of the link itself: MTU, addresses, up.
func dressLink(ns netns.NsHandle, want plan.Device) (changes int, err error) {
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return 0, fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	l, err := h.LinkByName(want.Link)
	if err != nil {
		return 0, fmt.Errorf("link %s: %w", want.Link, err)
	}
	if l.Attrs().MTU != want.MTU {
		if err := h.LinkSetMTU(l, want.MTU); err != nil {
			return changes, fmt.Errorf("link %s: mtu %d: %w", want.Link, want.MTU, err)
		}
		changes++
	}
	n, err := setAddrs(h, l, want.Addrs)
	changes += n
	if err != nil {
		return changes, err
	}
	if l.Attrs().Flags&unix.IFF_UP == 0 {
		if err := h.LinkSetUp(l); err != nil {
			return changes, fmt.Errorf("link %s: set up: %w", want.Link, err)
		}
		changes++
	}
	return changes, nil
}

func setAddrs(h *netlink.Handle, l netlink.Link, want []netip.Prefix) (changes int, err error) {
	have, err := h.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return 0, fmt.Errorf("link %s: list addresses: %w", l.Attrs().Name, err)
	}
	var there []netip.Prefix
	for _, a := range have {
		ip, _ := netip.AddrFromSlice(a.IP)
		ones, _ := a.Mask.Size()
		p := netip.PrefixFrom(ip.Unmap(), ones)
		switch {
		case slices.Contains(want, p):
			there = append(there, p)
		case !ip.IsLinkLocalUnicast(): // those the kernel makes itself
			if err := h.AddrDel(l, &a); err != nil {
				return changes, fmt.Errorf("link %s: remove %s: %w", l.Attrs().Name, p, err)
			}
			changes++
		}
	}
	for _, p := range want {
		if slices.Contains(there, p) {
			continue
		}
		a, err := netlink.ParseAddr(p.String())
		if err != nil {
			return changes, err
		}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD // nobody else can have it: it is derived from the node's name
		}
		if err := h.AddrReplace(l, a); err != nil {
			return changes, fmt.Errorf("link %s: add %s: %w", l.Attrs().Name, p, err)
		}
		changes++
	}
	return changes, nil
}
