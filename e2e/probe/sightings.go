package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// markPrefix opens the payload of every probe packet; the mark ends at the next semicolon.
const markPrefix = "seaway-probe:"

func findMark(b []byte) (string, bool) {
	i := bytes.Index(b, []byte(markPrefix))
	if i < 0 {
		return "", false
	}
	mark, _, ok := bytes.Cut(b[i+len(markPrefix):], []byte(";"))
	return string(mark), ok && len(mark) < 100
}

// sightings are the marks that reached this pod on any link, whether or not a socket would have got them: a probe
// that arrives and is then dropped has still crossed a border.
type sightings struct {
	mu    sync.Mutex
	marks map[string]bool
}

func newSightings() *sightings { return &sightings{marks: map[string]bool{}} }

// sniff looks at every packet that comes in on any link. It waits in Go's poller: a thread that sleeps in the system call
// makes the runtime's monitor look after it 2,500 times a second, in each pod of the lab.
func (s *sightings) sniff() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
	if err != nil {
		return fmt.Errorf("packet socket: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "packet socket")
	defer socket.Close()
	raw, err := socket.SyscallConn()
	if err != nil {
		return fmt.Errorf("packet socket: %w", err)
	}
	buf := make([]byte, 65536)
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, from, err := unix.Recvfrom(int(fd), buf, 0)
			switch {
			case err == unix.EAGAIN:
				return false
			case err == unix.EINTR || err == unix.ENETDOWN:
			case err != nil:
				failed = err
				return true
			default:
				s.note(buf[:n], from)
			}
		}
	})
	return fmt.Errorf("packet socket: %w", errors.Join(err, failed))
}

// note keeps the mark of a packet that came in, if it has one.
func (s *sightings) note(packet []byte, from unix.Sockaddr) {
	if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
		return
	}
	if mark, ok := findMark(packet); ok && !isControl(packet) {
		s.mu.Lock()
		s.marks[mark] = true
		s.mu.Unlock()
	}
}

// isControl tells an ICMP message from other packets: an error that comes back to a sender quotes what it is about.
func isControl(b []byte) bool {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return b[9] == unix.IPPROTO_ICMP
	case len(b) >= 40 && b[0]>>4 == 6:
		return b[6] == unix.IPPROTO_ICMPV6
	}
	return false
}

// serve hands the list to whoever asks from inside the pod.
func (s *sightings) serve() error {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", seenPort))
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		s.mu.Lock()
		marks := make([]string, 0, len(s.marks))
		for m := range s.marks {
			marks = append(marks, m)
		}
		s.mu.Unlock()
		slices.Sort(marks)
		for _, m := range marks {
			fmt.Fprintln(c, m)
		}
		c.Close()
	}
}

// seen prints the marks that the server in this pod has seen.
func seen([]string) error {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", seenPort), patience)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.Copy(os.Stdout, c)
	return err
}
