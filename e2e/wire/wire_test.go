package wire

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
)

func pcap(frames ...[]byte) []byte {
	h := make([]byte, 24)
	binary.LittleEndian.PutUint32(h, nanoMagic)
	for _, f := range frames {
		p := make([]byte, 16)
		binary.LittleEndian.PutUint32(p[8:], uint32(len(f)))
		h = append(append(h, p...), f...)
	}
	return h
}

func frame4(src, dst string, proto byte, sport, dport uint16, payload string) []byte {
	b := make([]byte, 14+20)
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	ip := b[14:]
	ip[0], ip[9] = 0x45, proto
	copy(ip[12:], netip.MustParseAddr(src).AsSlice())
	copy(ip[16:], netip.MustParseAddr(dst).AsSlice())
	head := 8
	if proto == 6 {
		head = 20
	}
	l4 := make([]byte, head)
	binary.BigEndian.PutUint16(l4, sport)
	binary.BigEndian.PutUint16(l4[2:], dport)
	if proto == 6 {
		l4[12] = 5 << 4
	}
	binary.BigEndian.PutUint16(ip[2:], uint16(20+head+len(payload)))
	return append(append(append(b, l4...), payload...), 0, 0, 0) // Ethernet pads
}

var places = []Place{
	{"c1", []netip.Prefix{netip.MustParsePrefix("172.30.1.0/24"), netip.MustParsePrefix("fd30:1::/64")}},
	{"c2", []netip.Prefix{netip.MustParsePrefix("172.30.2.0/24")}},
}

func TestFlowsSayWhatAnEavesdropperLearns(t *testing.T) {
	b := pcap(
		frame4("172.30.1.11", "172.30.2.11", 17, 51871, 51871, "\x04\x00\x00\x00 sealed"),
		frame4("172.30.2.11", "172.30.1.11", 17, 51871, 51871, "\x04\x00\x00\x00 sealed"),
		frame4("172.30.1.11", "172.30.2.11", 6, 40000, 30080, "GET / secret-word"),
		frame4("172.30.1.11", "172.30.100.10", 6, 40000, 6443, "to the hub: not counted"),
	)
	packets, err := Read(bytes.NewReader(b))
	if err != nil || len(packets) != 4 {
		t.Fatal(len(packets), err)
	}
	got := Table(Flows(packets, places, "secret-word"))
	want := `c1 > c2 tcp/30080 packets=1 bytes=17 readable=1
c1 > c2 udp/51871 packets=1 bytes=11 readable=0
c2 > c1 udp/51871 packets=1 bytes=11 readable=0
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestACutOffCaptureIsReadAsFarAsItGoes(t *testing.T) {
	b := pcap(frame4("172.30.1.11", "172.30.2.11", 17, 1, 2, "x"), frame4("172.30.1.11", "172.30.2.11", 17, 1, 2, "y"))
	if p, err := Read(bytes.NewReader(b[:len(b)-5])); err != nil || len(p) != 1 {
		t.Error(len(p), err)
	}
	if _, err := Read(strings.NewReader("no capture at all, but long enough")); err == nil {
		t.Error("nonsense was read as a capture")
	}
}

func FuzzRead(f *testing.F) {
	f.Add(pcap(frame4("172.30.1.11", "172.30.2.11", 6, 1, 2, "x")))
	f.Fuzz(func(t *testing.T, b []byte) {
		packets, _ := Read(bytes.NewReader(b))
		Flows(packets, places, "x")
	})
}
