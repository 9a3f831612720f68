// Package tun reads and writes a slice's TUN link in trains: a 64 kB frame of the kernel's is cut into packets for
// WireGuard, as many frames as wait are handed over at once, and packets that arrive are joined again into frames
// without being copied.
//
// It stands in for wireguard-go's own TUN device, which reads one frame and copies each joined packet, and it differs
// in one more way that is worth more than both: see [Device.Read] on system calls.
package tun

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Device is a TUN link, open with IFF_VNET_HDR. One goroutine may read while others write.
type Device struct {
	file *os.File
	raw  syscall.RawConn

	closed atomic.Bool

	in struct {
		frame [vnetLen + maxFrame]byte
		n     int // bytes in frame
		err   error
		read  func(fd uintptr) bool
		cut   cutter
		got   int

		// The reader's arguments, for read, which is made once so that reading allocates nothing.
		bufs   [][]byte
		sizes  []int
		offset int
	}
	mu  sync.Mutex // writers
	out struct {
		joiner
		iov    []unix.Iovec
		trains []train
		err    error
		write  func(fd uintptr) bool
		pkts   [][]byte
		offset int
	}
}

const (
	offloadTCP = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	offloadUDP = unix.TUN_F_USO4 | unix.TUN_F_USO6 // Linux 6.2
)

// New takes over the file descriptor of a TUN link.
func New(fd int) (*Device, error) {
	d := &Device{}
	d.out.udp = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadTCP|offloadUDP) == nil
	if !d.out.udp {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadTCP); err != nil {
			return nil, fmt.Errorf("set the link's offloads: %w", err)
		}
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("make the link's file non-blocking: %w", err)
	}
	d.file = os.NewFile(uintptr(fd), "/dev/net/tun")
	var err error
	if d.raw, err = d.file.SyscallConn(); err != nil {
		return nil, err
	}
	d.in.read, d.out.write = d.fill, d.drain
	return d, nil
}

// BatchSize is the number of packets to read at once.
func (*Device) BatchSize() int { return maxBatch }

// File is the link's file.
func (d *Device) File() *os.File { return d.file }

// Close ends reading and writing.
func (d *Device) Close() error {
	d.closed.Store(true)
	return d.file.Close()
}

// ended gives what the raw connection says of a closed file its public name.
func (d *Device) ended(err error) error {
	if err != nil && d.closed.Load() {
		return os.ErrClosed
	}
	return err
}

// Read waits for packets and hands over as many as there are, each at bufs[i][offset:]. It ends with os.ErrClosed when
// the device is closed or its link deleted.
//
// The system calls do not tell the Go runtime, unlike those of package os, which makes for a tenth to a sixth of all
// processor time: as they never block they are short, but long enough (the kernel carries a whole train into the pod
// meanwhile) for the runtime's monitor to think that they may block, take their processor away, and, as long as that
// happens, look again every 20 µs.
func (d *Device) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	in := &d.in
	in.bufs, in.sizes, in.offset, in.got, in.err = bufs, sizes, offset, 0, nil
	if in.cut.data != nil && d.slice() {
		return in.got, nil
	}
	err := d.ended(d.raw.Read(in.read))
	if err == nil {
		err = in.err
	}
	in.bufs, in.sizes = nil, nil
	if in.got > 0 {
		return in.got, nil // an error comes again
	}
	return 0, err
}

// fill reads until the batch is full or the link is empty. It returns false if it has nothing to show for it.
func (d *Device) fill(fd uintptr) bool {
	in := &d.in
	for {
		n, _, e := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&in.frame[0])), uintptr(len(in.frame)))
		switch {
		case e == unix.EINTR:
			continue
		case e == unix.EAGAIN:
			return in.got > 0
		case e == unix.EBADFD: // the link was deleted
			in.err = os.ErrClosed
			return true
		case e != 0:
			in.err = os.NewSyscallError("read", e)
			return true
		case n < vnetLen:
			continue
		}
		if err := in.cut.begin(readVnet(in.frame[:]), in.frame[vnetLen:n]); err != nil {
			continue // as a router drops what is damaged
		}
		if d.slice() {
			return true
		}
	}
}

// slice cuts packets off the frame in hand and tells whether the batch is full.
func (d *Device) slice() (full bool) {
	in := &d.in
	for in.cut.data != nil && in.got < len(in.bufs) {
		n, err := in.cut.cut(in.bufs[in.got][in.offset:])
		if err != nil {
			return false
		}
		in.sizes[in.got] = n
		in.got++
	}
	return in.got == len(in.bufs)
}

// Write sends packets, each bufs[i][offset:], into the link. It uses the vnetLen bytes before offset, and changes the
// headers of packets that it joins.
func (d *Device) Write(bufs [][]byte, offset int) (int, error) {
	if offset < vnetLen {
		return 0, fmt.Errorf("write with %d bytes of headroom: want %d", offset, vnetLen)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out := &d.out
	var errs error
	total := len(bufs)
	for ; len(bufs) > 0; bufs = bufs[min(maxBatch, len(bufs)):] {
		out.pkts, out.offset, out.err = bufs[:min(maxBatch, len(bufs))], offset, nil
		out.trains = out.join(out.pkts, offset)
		if err := d.ended(d.raw.Write(out.write)); err != nil {
			return 0, err
		}
		errs = errors.Join(errs, out.err)
	}
	clear(out.iov[:cap(out.iov)]) // let go of the packets
	out.pkts = nil
	if errs != nil {
		return 0, errs
	}
	return total, nil
}

// drain writes the trains. It returns false if it has to wait for the link.
func (d *Device) drain(fd uintptr) bool {
	out := &d.out
	for ; len(out.trains) > 0; out.trains = out.trains[1:] {
		t := &out.trains[0]
		if len(out.pkts[t.first]) <= out.offset {
			continue
		}
		out.iov = out.gather(t, out.pkts, out.offset, out.iov)
	again:
		_, _, e := unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&out.iov[0])), uintptr(len(out.iov)))
		switch e {
		case 0:
		case unix.EINTR:
			goto again
		case unix.EAGAIN:
			return false
		case unix.EBADFD:
			out.err = os.ErrClosed
			return true
		default:
			out.err = os.NewSyscallError("writev", e)
		}
	}
	return true
}
