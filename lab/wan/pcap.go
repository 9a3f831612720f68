package wan

import (
	"encoding/binary"
	"io"
	"time"
)

// The classic pcap format with nanoseconds; every tool reads it.
const (
	pcapMagic    = 0xa1b23c4d
	pcapEthernet = 1
	pcapSnap     = 1 << 18
)

// pcapWriter writes packets to a file.
type pcapWriter struct{ w io.Writer }

func newPcap(w io.Writer) (pcapWriter, error) {
	h := make([]byte, 24)
	le := binary.LittleEndian
	le.PutUint32(h, pcapMagic)
	le.PutUint16(h[4:], 2)
	le.PutUint16(h[6:], 4)
	le.PutUint32(h[16:], pcapSnap)
	le.PutUint32(h[20:], pcapEthernet)
	_, err := w.Write(h)
	return pcapWriter{w}, err
}

// packet writes one packet; length is what it was before it was cut off.
func (p pcapWriter) packet(at time.Time, b []byte, length int) error {
	h := make([]byte, 16, 16+len(b))
	le := binary.LittleEndian
	le.PutUint32(h, uint32(at.Unix()))
	le.PutUint32(h[4:], uint32(at.Nanosecond()))
	le.PutUint32(h[8:], uint32(len(b)))
	le.PutUint32(h[12:], uint32(length))
	_, err := p.w.Write(append(h, b...))
	return err
}
