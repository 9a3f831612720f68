package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The socket layer: one UDP socket per family. What wireguard-go's StdNetBind does, but receiving into its own large
// buffers and sending by scatter and gather, so that a packet that passes through is copied by the kernel only, and a
// train of packets that the kernel had joined (GRO) leaves as a train (GSO). Its system calls never block and do not tell
// the Go runtime: package tun says why.
const (
	readBatch     = 8       // trains per recvmmsg
	trainSize     = 1 << 16 // bytes
	maxSegments   = 64      // datagrams per train: the kernel's UDP_MAX_SEGMENTS before 6.9
	maxTrainBytes = 65000   // what fits an IPv4 datagram, with room to spare
	bufferBytes   = 7 << 20 // socket buffers, as wireguard-go has them
	sendGroup     = 128     // packets per sendmmsg
	controlSize   = 64      // bytes for one pktinfo and one segment size
)

// socket is one UDP socket.
type socket struct {
	conn *net.UDPConn
	raw  syscall.RawConn
	v6   bool
	gso  atomic.Bool
}

type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [unsafe.Sizeof(uintptr(0)) - 4]byte
}

func listenUDP(v6 bool, port uint16) (*socket, uint16, error) {
	network := "udp4"
	if v6 {
		network = "udp6"
	}
	s := &socket{v6: v6}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = s.setOptions(int(fd)) }); e != nil {
			return e
		}
		return err
	}}
	pc, err := lc.ListenPacket(context.Background(), network, ":"+strconv.Itoa(int(port)))
	if err != nil {
		return nil, 0, err
	}
	s.conn = pc.(*net.UDPConn)
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		s.conn.Close()
		return nil, 0, err
	}
	return s, uint16(s.conn.LocalAddr().(*net.UDPAddr).Port), nil
}

func (s *socket) setOptions(fd int) error {
	for _, o := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF, unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o, bufferBytes) // smaller buffers cost speed, not function
	}
	var err error
	if s.v6 {
		err = errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
	} else {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) // Linux 5.0; without it packets come one by one
	_, e := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	s.gso.Store(e == nil)
	return err
}

// udp is a family's socket with what it needs to read and write: the real [wire].
type udp struct {
	*socket
	reader  *trainReader
	writers sync.Pool
}

func newUDP(s *socket) *udp {
	return &udp{socket: s, reader: newTrainReader(), writers: sync.Pool{New: func() any { return newWriter() }}}
}

func (u *udp) read() ([]train, error) {
	ts, err := u.reader.read(u.socket)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = u.conn.SetReadDeadline(time.Time{}) // fails on a closed socket only: the next read says so
		return nil, errWoken
	}
	return ts, err
}

func (u *udp) wake() { _ = u.conn.SetReadDeadline(time.Unix(1, 0)) }

func (u *udp) close() error { return u.conn.Close() }

func (u *udp) write(pkts [][]byte, to *Endpoint, wait bool) error {
	w := u.writers.Get().(*writer)
	defer u.writers.Put(w)
	w.wait = wait
	for ; len(pkts) > sendGroup; pkts = pkts[sendGroup:] {
		if err := w.write(u.socket, pkts[:sendGroup], to); err != nil {
			return err
		}
	}
	return w.write(u.socket, pkts, to)
}

// listenBoth opens both families on one port; a kernel without IPv6 gives one socket. Port 0 picks a free one.
func listenBoth(port uint16) (socks [2]*socket, actual uint16, err error) {
	for try := 0; ; try++ {
		socks[0], actual, err = listenUDP(false, port)
		if err != nil && !errors.Is(err, syscall.EAFNOSUPPORT) {
			return socks, 0, fmt.Errorf("udp port %d: %w; another process holds it? see `ss -ulpn`", port, err)
		}
		if socks[0] == nil {
			actual = port
		}
		socks[1], actual, err = listenUDP(true, actual)
		switch {
		case err == nil:
			return socks, actual, nil
		case errors.Is(err, syscall.EAFNOSUPPORT) && socks[0] != nil:
			return socks, uint16(socks[0].conn.LocalAddr().(*net.UDPAddr).Port), nil
		}
		if socks[0] != nil {
			socks[0].conn.Close()
			socks[0] = nil
		}
		if port != 0 || !errors.Is(err, syscall.EADDRINUSE) || try > 100 {
			return socks, 0, fmt.Errorf("udp port %d, IPv6: %w; another process holds it? see `ss -ulpn`", port, err)
		}
	}
}

// train is one received buffer: datagrams of one source, all of size seg but the last.
type train struct {
	data []byte
	seg  int
	from *Endpoint
}

// trainReader receives trains into buffers of its own, which hold until the next read. Not for concurrent use.
type trainReader struct {
	bufs   [readBatch][]byte
	hdrs   [readBatch]mmsghdr
	iovs   [readBatch]unix.Iovec
	names  [readBatch]unix.RawSockaddrInet6
	oobs   [readBatch][controlSize]byte
	trains [readBatch]train
	last   *Endpoint // reused while packets keep coming from it

	n       int
	err     error
	receive func(fd uintptr) bool
}

func newTrainReader() *trainReader {
	r := &trainReader{}
	slab := make([]byte, readBatch*trainSize)
	for i := range r.bufs {
		r.bufs[i] = slab[i*trainSize : (i+1)*trainSize : (i+1)*trainSize]
		r.iovs[i].Base = &r.bufs[i][0]
		r.iovs[i].SetLen(trainSize)
		h := &r.hdrs[i].hdr
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Control = &r.oobs[i][0]
	}
	r.receive = r.recvmmsg
	return r
}

func (r *trainReader) recvmmsg(fd uintptr) bool {
	for i := range r.hdrs {
		r.hdrs[i].hdr.Namelen = unix.SizeofSockaddrInet6
		r.hdrs[i].hdr.SetControllen(controlSize)
		r.hdrs[i].hdr.Flags = 0
	}
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.hdrs[0])), readBatch, unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			r.n, r.err = int(n), nil
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			r.n, r.err = 0, os.NewSyscallError("recvmmsg", e)
			return true
		}
	}
}

// read waits for packets. It ends with net.ErrClosed or os.ErrDeadlineExceeded when the socket is told so.
func (r *trainReader) read(s *socket) ([]train, error) {
	if err := s.raw.Read(r.receive); err != nil {
		return nil, err
	}
	if r.err != nil {
		return nil, r.err
	}
	out := r.trains[:0]
	for i := range r.n {
		h := &r.hdrs[i]
		if h.len == 0 {
			continue
		}
		addr := addrPort(&r.names[i])
		seg, local := readControl(r.oobs[i][:h.hdr.Controllen])
		if seg <= 0 || seg > int(h.len) {
			seg = int(h.len)
		}
		if l := r.last; l == nil || l.addr != addr || l.local != local || l.cleared.Load() {
			r.last = &Endpoint{addr: addr, local: local}
		}
		out = append(out, train{data: r.bufs[i][:h.len], seg: seg, from: r.last})
	}
	return out, nil
}

func addrPort(sa *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	if sa.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr), port)
	}
	a := netip.AddrFrom16(sa.Addr)
	if sa.Scope_id != 0 {
		a = a.WithZone(strconv.FormatUint(uint64(sa.Scope_id), 10))
	}
	return netip.AddrPortFrom(a, port)
}

// readControl finds the size of a train's datagrams (0: it is one datagram) and the local address it came to.
func readControl(oob []byte) (seg int, local netip.Addr) {
	for len(oob) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
		size := int(h.Len)
		if size < unix.SizeofCmsghdr || size > len(oob) {
			return
		}
		data := oob[unix.CmsgLen(0):size]
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			seg = int(binary.NativeEndian.Uint32(data))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			local = netip.AddrFrom4((*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Spec_dst)
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			if a := netip.AddrFrom16((*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0])).Addr); !a.IsLinkLocalUnicast() {
				local = a
			}
		}
		next := unix.CmsgSpace(size - unix.CmsgLen(0))
		if next > len(oob) {
			return
		}
		oob = oob[next:]
	}
	return
}

// writer is the memory of one send. They are pooled by the switch.
type writer struct {
	hdrs [sendGroup]mmsghdr
	iovs [2 * sendGroup]unix.Iovec // two per packet if each has a head
	oobs [sendGroup][controlSize]byte
	name unix.RawSockaddrInet6

	at, n int
	wait  bool // for room in the socket's buffer; else drop, as a router does
	err   error
	send  func(fd uintptr) bool
}

func newWriter() *writer {
	w := &writer{}
	w.send = w.sendmmsg
	return w
}

func (w *writer) sendmmsg(fd uintptr) bool {
	for w.at < w.n {
		n, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&w.hdrs[w.at])), uintptr(w.n-w.at), unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			w.at += int(n)
		case unix.EINTR:
		case unix.EAGAIN:
			if w.wait {
				return false
			}
			w.err = e
			return true
		default:
			w.err = e
			return true
		}
	}
	return true
}

// write sends packets to one endpoint, joining those of one size into trains. At most sendGroup packets.
func (w *writer) write(s *socket, pkts [][]byte, to *Endpoint) error {
	w.setName(s, to.addr)
	gso := s.gso.Load()
	w.pack(pkts, to, gso, s.v6)
	err := w.flush(s)
	if gso && (errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE)) {
		// EIO: this network card cannot checksum, hence cannot segment. EINVAL, EMSGSIZE: the datagrams are larger
		// than the path's MTU, so they must be fragmented, one by one.
		if errors.Is(err, unix.EIO) {
			s.gso.Store(false)
		}
		sent := w.piecesBefore(w.at) / vectors(to)
		w.pack(pkts[sent:], to, false, s.v6)
		err = w.flush(s)
	}
	if err != nil && to.SrcIP().IsValid() && !errors.Is(err, unix.EAGAIN) {
		to.ClearSrc() // the local address that had been dialled may be gone
		w.pack(pkts, to, false, s.v6)
		err = w.flush(s)
	}
	clear(w.iovs[:len(pkts)*vectors(to)]) // let go of the packets
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return os.NewSyscallError("sendmmsg", err)
	}
	return err
}

func (w *writer) flush(s *socket) error {
	w.at, w.err = 0, nil
	if err := s.raw.Write(w.send); err != nil {
		return err
	}
	return w.err
}

func (w *writer) piecesBefore(msg int) (n int) {
	for i := range msg {
		n += int(w.hdrs[i].hdr.Iovlen)
	}
	return n
}

// pack lays out packets as messages: one message per run of packets of equal size (the last may be shorter).
func (w *writer) pack(pkts [][]byte, to *Endpoint, gso, v6 bool) {
	local, per, head := to.SrcIP(), vectors(to), 0
	if to.head != nil {
		head = sizeHead
	}
	w.n = 0
	for i := 0; i < len(pkts); {
		size, bytes, first := head+len(pkts[i]), 0, i
		for ; i < len(pkts); i++ {
			l := head + len(pkts[i])
			if i > first && (!gso || l > size || i-first >= maxSegments || bytes+l > maxTrainBytes) {
				break
			}
			if to.head != nil {
				w.iovs[per*i].Base = &to.head[0]
				w.iovs[per*i].SetLen(sizeHead)
			}
			v := &w.iovs[per*i+per-1]
			v.Base = unsafe.SliceData(pkts[i])
			v.SetLen(len(pkts[i]))
			bytes += l
			if l < size { // a shorter one is legal at the end only
				i++
				break
			}
		}
		h := &w.hdrs[w.n].hdr
		h.Name = (*byte)(unsafe.Pointer(&w.name))
		h.Namelen = unix.SizeofSockaddrInet4
		if v6 {
			h.Namelen = unix.SizeofSockaddrInet6
		}
		h.Iov = &w.iovs[per*first]
		h.SetIovlen(per * (i - first))
		seg := 0
		if i-first > 1 {
			seg = size
		}
		n := writeControl(w.oobs[w.n][:], seg, local)
		h.Control = nil
		if n > 0 {
			h.Control = &w.oobs[w.n][0]
		}
		h.SetControllen(n)
		w.n++
	}
}

// vectors is how many pieces a packet to an endpoint is made of.
func vectors(to *Endpoint) int {
	if to.head != nil {
		return 2
	}
	return 1
}

func (w *writer) setName(s *socket, to netip.AddrPort) {
	w.name = unix.RawSockaddrInet6{}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&w.name.Port))[:], to.Port())
	if s.v6 {
		w.name.Family = unix.AF_INET6
		w.name.Addr = to.Addr().As16()
		if z := to.Addr().Zone(); z != "" {
			id, _ := strconv.ParseUint(z, 10, 32) // names are never put in
			w.name.Scope_id = uint32(id)
		}
		return
	}
	w.name.Family = unix.AF_INET
	(*unix.RawSockaddrInet4)(unsafe.Pointer(&w.name)).Addr = to.Addr().As4()
}

// writeControl asks for segmentation (seg > 0) and for a source address (local valid). It returns the bytes written.
func writeControl(oob []byte, seg int, local netip.Addr) int {
	n := 0
	put := func(level, typ int32, size int) []byte {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[n]))
		h.Level, h.Type = level, typ
		h.SetLen(unix.CmsgLen(size))
		data := oob[n+unix.CmsgLen(0) : n+unix.CmsgLen(size)]
		clear(data)
		n += unix.CmsgSpace(size)
		return data
	}
	switch {
	case local.Is4():
		d := put(unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		(*unix.Inet4Pktinfo)(unsafe.Pointer(&d[0])).Spec_dst = local.As4()
	case local.Is6():
		d := put(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		(*unix.Inet6Pktinfo)(unsafe.Pointer(&d[0])).Addr = local.As16()
	}
	if seg > 0 {
		d := put(unix.SOL_UDP, unix.UDP_SEGMENT, 2)
		binary.NativeEndian.PutUint16(d, uint16(seg))
	}
	return n
}
