package wan

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/lab/layout"
	"seaway.dev/seaway/lab/netns"
	"seaway.dev/seaway/lab/underlay"
)

// Capture records every packet that enters the WAN router from a cluster, until
// the context or the time ends, and returns how many there were.
func Capture(ctx context.Context, l layout.Layout, file string, duration time.Duration) (n int, err error) {
	if duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, duration)
		defer cancel()
	}
	s, links, err := tap(l)
	if err != nil {
		return 0, err
	}
	defer unix.Close(s)
	f, err := os.Create(file)
	if err != nil {
		return 0, err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	defer func() { err = errors.Join(err, w.Flush(), f.Close()) }()
	out, err := newPcap(w)
	if err != nil {
		return 0, err
	}
	// The header is there at once, so that who waits for it knows we listen.
	if err := w.Flush(); err != nil {
		return 0, err
	}
	return record(ctx, s, links, out)
}

// tap opens a packet socket in the router's namespace, and finds the clusters' links.
func tap(l layout.Layout) (s int, links map[int]bool, err error) {
	links = map[int]bool{}
	err = netns.Do(underlay.Router, func() error {
		s, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(be.Uint16(ne.AppendUint16(nil, unix.ETH_P_ALL))))
		if err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		_ = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveSpace)
		for _, c := range l.Clusters {
			i, err := net.InterfaceByName(c.Bridge())
			if err != nil {
				return errors.Join(fmt.Errorf("link of %s at the router: %w", c.Name, err), unix.Close(s))
			}
			links[i.Index] = true
		}
		return nil
	})
	return s, links, err
}

func record(ctx context.Context, s int, links map[int]bool, out pcapWriter) (n int, err error) {
	buf := make([]byte, pcapSnap)
	for ctx.Err() == nil {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(s), Events: unix.POLLIN}}, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return n, err
		}
		for i := 0; ready > 0 && i < 1024; i++ {
			size, from, err := unix.Recvfrom(s, buf, unix.MSG_DONTWAIT)
			if err != nil {
				break
			}
			// Each packet passes several links of the router; on its way in
			// through its cluster's own link it is seen exactly once.
			ll, ok := from.(*unix.SockaddrLinklayer)
			if !ok || !links[ll.Ifindex] || ll.Pkttype != unix.PACKET_HOST {
				continue
			}
			if err := out.packet(time.Now(), buf[:size], size); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}
