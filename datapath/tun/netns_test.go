package tun

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/datapath/netnstest"
)

// pipe joins two namespaces by a TUN link in each and a goroutine per direction, which carries packets as WireGuard
// would: cut by one end, joined by the other.
type pipe struct {
	a, b   *netnstest.NS
	frames [2]atomic.Int64 // read by the ends
	pkts   [2]atomic.Int64
}

func newPipe(t *testing.T, mtu int) *pipe {
	netnstest.NeedRoot(t)
	p := &pipe{a: netnstest.New(t, "swtun-a"), b: netnstest.New(t, "swtun-b")}
	var ends [2]*Device
	for i, n := range []*netnstest.NS{p.a, p.b} {
		var fd int
		if err := n.Do(func() (err error) { fd, err = open("tun0"); return err }); err != nil {
			t.Fatal(err)
		}
		d, err := New(fd)
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = d
		n.IP(fmt.Sprintf("link set tun0 mtu %d up", mtu))
		n.IP(fmt.Sprintf("addr add 10.77.0.%d/24 dev tun0", i+1))
		n.IP(fmt.Sprintf("addr add fd77::%d/64 dev tun0 nodad", i+1))
	}
	var group sync.WaitGroup
	for i := range ends {
		group.Go(func() { p.carry(t, ends[i], ends[1-i], i) })
	}
	t.Cleanup(func() {
		ends[0].Close()
		ends[1].Close()
		group.Wait()
	})
	return p
}

func (p *pipe) carry(t *testing.T, from, to *Device, i int) {
	bufs, sizes := make([][]byte, from.BatchSize()), make([]int, from.BatchSize())
	for k := range bufs {
		bufs[k] = make([]byte, 1<<16)
	}
	out := make([][]byte, len(bufs))
	for {
		n, err := from.Read(bufs, sizes, headroom)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		for k := range n {
			out[k] = bufs[k][:headroom+sizes[k]]
		}
		p.frames[i].Add(1)
		p.pkts[i].Add(int64(n))
		if _, err := to.Write(out[:n], headroom); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	}
}

func open(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	return fd, unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
}

// TestTransfer: what the kernel sends over TCP and UDP, in either IP version, arrives whole, and in trains.
func TestTransfer(t *testing.T) {
	p := newPipe(t, 1420)
	for _, host := range []string{"10.77.0.2", "fd77::2"} {
		t.Run("tcp "+host, func(t *testing.T) { p.tcp(t, host) })
		t.Run("udp "+host, func(t *testing.T) { p.udp(t, host) })
	}
	if f, n := p.frames[0].Load(), p.pkts[0].Load(); n < 2*f {
		t.Errorf("%d packets in %d reads: they were not read in batches", n, f)
	}
}

func (p *pipe) tcp(t *testing.T, host string) {
	const size = 16 << 20
	var l net.Listener
	if err := p.b.Do(func() (err error) { l, err = net.Listen("tcp", net.JoinHostPort(host, "0")); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type result struct {
		sum [32]byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- result{err: err}
			return
		}
		defer c.Close()
		data, err := io.ReadAll(c)
		done <- result{sha256.Sum256(data), err}
	}()
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	var c net.Conn
	if err := p.a.Do(func() (err error) { c, err = net.DialTimeout("tcp", l.Addr().String(), 5*time.Second); return err }); err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if r := <-done; r.err != nil || r.sum != sha256.Sum256(data) {
		t.Errorf("arrived changed: %v", r.err)
	}
}

// udp sends 20 datagrams as one train (UDP_SEGMENT); each must come out alone.
func (p *pipe) udp(t *testing.T, host string) {
	var in net.PacketConn
	if err := p.b.Do(func() (err error) { in, err = net.ListenPacket("udp", net.JoinHostPort(host, "0")); return err }); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var c net.Conn
	if err := p.a.Do(func() (err error) { c, err = net.Dial("udp", in.LocalAddr().String()); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1000) })
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 19500)
	for i := range data {
		data[i] = byte(i / 1000)
	}
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	_ = in.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 1<<16)
	for i := range 20 {
		n, _, err := in.ReadFrom(buf)
		if err != nil {
			t.Fatal("datagram ", i, ": ", err)
		}
		if want := min(1000, 19500-1000*i); n != want || buf[0] != byte(i) || buf[n-1] != byte(i) {
			t.Errorf("datagram %d: %d bytes of %d…%d, want %d", i, n, buf[0], buf[n-1], want)
		}
	}
}

// TestDeletedLink: the reader ends when somebody deletes the link.
func TestDeletedLink(t *testing.T) {
	p := newPipe(t, 1420)
	var d *Device
	var fd int
	if err := p.a.Do(func() (err error) { fd, err = open("tun1"); return err }); err != nil {
		t.Fatal(err)
	}
	d, err := New(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := d.Read([][]byte{make([]byte, 1<<16)}, []int{0}, headroom); err != nil {
				ended <- err
				return
			}
		}
	}()
	p.a.IP("link set tun1 up")
	p.a.IP("link del tun1")
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("still reading a link that is gone")
	}
}
