package tun

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

const headroom = 16 // as WireGuard leaves

// flow makes packets that follow each other.
type flow struct {
	v6, udp bool
	port    uint16
	id      uint16
	seq     uint32
}

func (f *flow) packet(data []byte, flags byte) []byte {
	l4len := udpLen
	if !f.udp {
		l4len = 32
	}
	var p []byte
	if f.v6 {
		p = make([]byte, 40+l4len+len(data))
		p[0], p[7] = 0x60, 64
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
		p[6] = protoTCP
		if f.udp {
			p[6] = protoUDP
		}
		p[8], p[23], p[24], p[39] = 0xfd, 1, 0xfd, 2
	} else {
		p = make([]byte, 20+l4len+len(data))
		p[0], p[6], p[8], p[9] = 0x45, 0x40, 64, protoTCP
		if f.udp {
			p[9] = protoUDP
		}
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		binary.BigEndian.PutUint16(p[4:], f.id)
		f.id++
		copy(p[12:], []byte{10, 77, 1, 1, 10, 77, 2, 1})
		putCheck(p[10:], sum(p[:20], 0))
	}
	l4 := p[len(p)-l4len-len(data):]
	binary.BigEndian.PutUint16(l4, f.port)
	binary.BigEndian.PutUint16(l4[2:], 80)
	at, proto := udpCheck, byte(protoUDP)
	if f.udp {
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	} else {
		at, proto = tcpCheck, protoTCP
		binary.BigEndian.PutUint32(l4[4:], f.seq)
		f.seq += uint32(len(data))
		l4[11], l4[12], l4[tcpFlags], l4[15] = 1, 8<<4, flags, 200
		copy(l4[20:], []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8})
	}
	copy(l4[l4len:], data)
	putCheck(l4[at:], sum(l4, add(pseudo(p, proto), word(uint16(len(l4))))))
	return p
}

// through joins packets, lets the frames pass as the kernel would see them, and cuts them again.
func through(t *testing.T, pkts [][]byte) (frames int, out [][]byte) {
	t.Helper()
	bufs := make([][]byte, len(pkts))
	for i, p := range pkts {
		bufs[i] = append(make([]byte, headroom), p...)
	}
	j := &joiner{udp: true}
	trains := j.join(bufs, headroom)
	for k := range trains {
		var frame []byte
		for _, v := range j.gather(&trains[k], bufs, headroom, nil) {
			frame = append(frame, unsafeBytes(v)...)
		}
		out = append(out, cutAll(t, frame)...)
	}
	return len(trains), out
}

func cutAll(t *testing.T, frame []byte) (out [][]byte) {
	t.Helper()
	var c cutter
	if err := c.begin(readVnet(frame), frame[vnetLen:]); err != nil {
		t.Fatal(err)
	}
	for c.data != nil {
		buf := make([]byte, maxFrame)
		n, err := c.cut(buf)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, buf[:n])
	}
	return out
}

// TestTrains: whatever is joined comes out as it was, to the bit, in its flow's order, and in few frames.
func TestTrains(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		flows := make([]*flow, 1+rnd.IntN(5))
		for i := range flows {
			flows[i] = &flow{v6: rnd.IntN(2) == 0, udp: rnd.IntN(2) == 0, port: uint16(1000 + i), seq: rnd.Uint32(), id: uint16(rnd.Uint32())}
		}
		var pkts [][]byte
		want := map[string][][]byte{}
		for range 1 + rnd.IntN(maxBatch) {
			f := flows[rnd.IntN(len(flows))]
			data := make([]byte, []int{1368, 1368, 1368, 1368, 700, 1, 0}[rnd.IntN(7)])
			for i := range data {
				data[i] = byte(rnd.Uint32())
			}
			p := f.packet(data, []byte{flagACK, flagACK, flagACK, flagACK | flagPSH, flagACK | flagFIN}[rnd.IntN(5)])
			pkts = append(pkts, p)
			want[key(p)] = append(want[key(p)], p)
		}
		frames, out := through(t, pkts)
		got := map[string][][]byte{}
		for _, p := range out {
			got[key(p)] = append(got[key(p)], p)
		}
		if frames > len(pkts) || len(out) != len(pkts) {
			t.Fatalf("round %d: %d packets became %d frames and %d packets", round, len(pkts), frames, len(out))
		}
		for k, w := range want {
			if !slices.EqualFunc(got[k], w, bytes.Equal) {
				t.Fatalf("round %d: flow %s came out changed:\n%x\n%x", round, k, got[k], w)
			}
		}
	}
}

func key(p []byte) string { return fmt.Sprintf("%d %x", p[0]>>4, p[len(p)-len(l4of(p)):][:4]) }

func l4of(p []byte) []byte {
	if p[0]>>4 == 4 {
		return p[20:]
	}
	return p[40:]
}

// TestJoining: what may be joined is, and any difference that segmentation would not restore prevents it.
func TestJoining(t *testing.T) {
	for name, c := range map[string]struct {
		udp, v6 bool
		change  func(p []byte, l4 []byte)
		frames  int
	}{
		"tcp":                  {frames: 1},
		"tcp over ipv6":        {v6: true, frames: 1},
		"udp":                  {udp: true, frames: 1},
		"udp over ipv6":        {udp: true, v6: true, frames: 1},
		"another port":         {change: func(_, l4 []byte) { l4[1]++ }, frames: 3},
		"another address":      {change: func(p, _ []byte) { p[19]++ }, frames: 3},
		"ipv6 address":         {v6: true, change: func(p, _ []byte) { p[39]++ }, frames: 3},
		"time to live":         {change: func(p, _ []byte) { p[8]-- }, frames: 3},
		"hop limit":            {v6: true, change: func(p, _ []byte) { p[7]-- }, frames: 3},
		"type of service":      {change: func(p, _ []byte) { p[1] = 4 }, frames: 3},
		"flow label":           {v6: true, change: func(p, _ []byte) { p[3] = 4 }, frames: 3},
		"may be fragmented":    {change: func(p, _ []byte) { p[6] = 0 }, frames: 3},
		"a fragment":           {change: func(p, _ []byte) { p[6] = 0x20 }, frames: 3},
		"ip options":           {change: func(p, _ []byte) { p[0] = 0x46 }, frames: 3},
		"wrong length":         {change: func(p, _ []byte) { p[3]-- }, frames: 3},
		"sequence number":      {change: func(_, l4 []byte) { l4[7]++ }, frames: 3},
		"acknowledged":         {change: func(_, l4 []byte) { l4[11]++ }, frames: 3},
		"window":               {change: func(_, l4 []byte) { l4[15]++ }, frames: 3},
		"tcp options":          {change: func(_, l4 []byte) { l4[27]++ }, frames: 3},
		"syn":                  {change: func(_, l4 []byte) { l4[tcpFlags] |= 2 }, frames: 3},
		"reset":                {change: func(_, l4 []byte) { l4[tcpFlags] |= 4 }, frames: 3},
		"urgent":               {change: func(_, l4 []byte) { l4[tcpFlags] |= 0x20 }, frames: 3},
		"congestion":           {change: func(_, l4 []byte) { l4[tcpFlags] |= 0x80 }, frames: 3},
		"tcp header's length":  {change: func(_, l4 []byte) { l4[12] = 0xf0 }, frames: 3},
		"damaged header":       {change: func(_, l4 []byte) { l4[12] = 0x40 }, frames: 3},
		"push":                 {change: func(_, l4 []byte) { l4[tcpFlags] |= flagPSH }, frames: 2},
		"udp without checksum": {udp: true, change: func(_, l4 []byte) { l4[6], l4[7] = 0, 0 }, frames: 3},
		"udp fragment":         {udp: true, change: func(p, _ []byte) { p[6] = 0x20 }, frames: 3},
		"udp length":           {udp: true, change: func(_, l4 []byte) { l4[5]-- }, frames: 3},
	} {
		t.Run(name, func(t *testing.T) {
			f := &flow{udp: c.udp, v6: c.v6, port: 9}
			var bufs [][]byte
			for i := range 3 {
				p := f.packet(make([]byte, 1000), flagACK)
				if i == 1 && c.change != nil {
					c.change(p, l4of(p))
				}
				bufs = append(bufs, append(make([]byte, headroom), p...))
			}
			j := &joiner{udp: true}
			if n := len(j.join(bufs, headroom)); n != c.frames {
				t.Errorf("%d frames, want %d", n, c.frames)
			}
		})
	}
}

// TestCut: a frame larger than the batch is handed out in parts, and the segments' headers are right.
func TestCut(t *testing.T) {
	f := &flow{port: 1, seq: 0xfffffff0}
	whole := f.packet(make([]byte, 5000), flagACK|flagPSH|flagFIN)
	frame := make([]byte, vnetLen, vnetLen+len(whole))
	frame = append(frame, whole...)
	vnet{flags: needsCheck, gso: gsoTCP4, gsoSize: 1000, csumStart: 20, csumOffset: tcpCheck}.put(frame)
	g := &flow{port: 1, seq: 0xfffffff0}
	for i, p := range cutAll(t, frame) {
		flags := byte(flagACK)
		if i == 4 {
			flags |= flagPSH | flagFIN
		}
		if w := g.packet(make([]byte, 1000), flags); !bytes.Equal(p, w) {
			t.Errorf("segment %d:\n%x, want\n%x", i, p[:60], w[:60])
		}
	}
}

func TestSum(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for n := range 300 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32()) | byte(0xff*(n%2))
		}
		var want uint32
		for i := 0; i < n; i += 2 {
			w := uint32(b[i]) << 8
			if i+1 < n {
				w |= uint32(b[i+1])
			}
			want += w
			want = want>>16 + want&0xffff
		}
		var got [2]byte
		putSum(got[:], sum(b, 0))
		if g := uint32(binary.BigEndian.Uint16(got[:])); g != want && g%0xffff != want%0xffff {
			t.Errorf("%d bytes: %x, want %x", n, g, want)
		}
	}
}

func unsafeBytes(v unix.Iovec) []byte { return unsafe.Slice(v.Base, int(v.Len)) }

// FuzzFrame: nothing that the kernel could hand out makes the cutter panic, run for ever or write out of bounds.
func FuzzFrame(f *testing.F) {
	for _, udp := range []bool{false, true} {
		p := (&flow{udp: udp, port: 7}).packet(make([]byte, 3000), flagACK)
		b := append(make([]byte, vnetLen), p...)
		v := vnet{flags: needsCheck, gso: gsoTCP4, gsoSize: 1000, csumStart: 20, csumOffset: tcpCheck}
		if udp {
			v.gso, v.csumOffset = gsoUDP, udpCheck
		}
		v.put(b)
		f.Add(b)
	}
	f.Add(append([]byte{1, 0, 0, 0, 0, 0, 20, 0, 16, 0}, (&flow{}).packet(nil, 0)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < vnetLen || len(b) > vnetLen+maxFrame {
			return
		}
		var c cutter
		if c.begin(readVnet(b), b[vnetLen:]) != nil {
			return
		}
		buf := make([]byte, 2000)
		for n := 0; c.data != nil; n++ {
			left := len(c.data)
			size, err := c.cut(buf)
			if err == nil && (size > len(buf) || len(c.data) >= left) || n > maxFrame {
				t.Fatalf("%d bytes cut, %d left of %d", size, len(c.data), left)
			}
		}
	})
}

// FuzzJoin: two packets of any content either stay apart or are restored by cutting, but for identification, and
// checksums, which a peer's authenticated packets are not asked for.
func FuzzJoin(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			fl := &flow{udp: udp, v6: v6, port: 7}
			a := fl.packet([]byte("hello"), flagACK)
			f.Add(a, fl.packet([]byte("world"), flagACK|flagPSH))
		}
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if len(a) == 0 || len(b) == 0 || len(a)+len(b) > maxFrame {
			return
		}
		j := &joiner{udp: true}
		bufs := [][]byte{append(make([]byte, headroom), a...), append(make([]byte, headroom), b...)}
		if len(j.join(bufs, headroom)) == 2 {
			return
		}
		_, out := through(t, [][]byte{bytes.Clone(a), bytes.Clone(b)})
		if len(out) != 2 || !bytes.Equal(blank(out[0]), blank(a)) || !bytes.Equal(blank(out[1]), blank(b)) {
			t.Fatalf("joined and cut:\n%x\n%x\nbefore:\n%x\n%x", out[0], out[1], a, b)
		}
	})
}

func blank(p []byte) []byte {
	p = bytes.Clone(p)
	proto := p[6]
	if p[0]>>4 == 4 {
		clear(p[4:6])
		clear(p[10:12])
		proto = p[9]
	}
	at := tcpCheck
	if proto == protoUDP {
		at = udpCheck
	}
	clear(l4of(p)[at : at+2])
	return p
}
