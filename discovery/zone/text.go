package zone

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// Strings returns the records as people write them, without owner: "A 10.9.0.1", "SRV 0 100 80 web.shop.svc…".
// It reads what this package wrote, nothing from outside.
func (s *Set) Strings() []string {
	if s == nil {
		return nil
	}
	var out []string
	start := 0
	for _, end := range s.Ends {
		r := s.Wire[start:end]
		out = append(out, text(binary.BigEndian.Uint16(r[2:]), r[12:]))
		start = end
	}
	return out
}

func text(qtype uint16, data []byte) string {
	switch qtype {
	case A, AAAA:
		a, _ := netip.AddrFromSlice(data)
		return fmt.Sprintf("%s %s", TypeName(qtype), a)
	case SRV:
		return fmt.Sprintf("SRV %d %d %d %s", binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:]),
			binary.BigEndian.Uint16(data[4:]), dotted(data[6:]))
	case TXT:
		return fmt.Sprintf("TXT %q", data[1:])
	case NS, PTR:
		return fmt.Sprintf("%s %s", TypeName(qtype), dotted(data))
	}
	return TypeName(qtype)
}

// TypeName returns the name of a record type of this package, "other" for others.
func TypeName(qtype uint16) string {
	switch qtype {
	case A:
		return "A"
	case NS:
		return "NS"
	case SOA:
		return "SOA"
	case PTR:
		return "PTR"
	case TXT:
		return "TXT"
	case AAAA:
		return "AAAA"
	case SRV:
		return "SRV"
	case ANY:
		return "ANY"
	}
	return "other"
}

// dotted turns a name in wire form into text.
func dotted(w []byte) string {
	var b strings.Builder
	for len(w) > 0 && w[0] != 0 {
		b.Write(w[1 : 1+int(w[0])])
		b.WriteByte('.')
		w = w[1+int(w[0]):]
	}
	return b.String()
}

// String returns the response code as DNS tools print it.
func (c Code) String() string {
	switch c {
	case NoError:
		return "NOERROR"
	case ServFail:
		return "SERVFAIL"
	case NXDomain:
		return "NXDOMAIN"
	case Refused:
		return "REFUSED"
	}
	return fmt.Sprintf("RCODE%d", uint8(c))
}
