package dns

import (
	"encoding/binary"

	"seaway.dev/seaway/discovery/zone"
)

// Sizes of messages, bytes (RFC 1035 §2.3.4, §4.2; RFC 6891; 1232 is what the DNS Flag Day of 2020 found to pass
// everywhere without fragments).
const (
	headerLen   = 12
	plainUDP    = 512
	largestUDP  = 1232
	largestTCP  = 65535
	optLen      = 11
	largestName = 255
)

// Bits of the header's second word.
const (
	bitQR     = 1 << 15
	maskOp    = 15 << 11
	bitAA     = 1 << 10
	bitTC     = 1 << 9
	bitRD     = 1 << 8
	typeOPT   = 41
	classIN   = 1
	classANY  = 255
	codeForm  = 1
	codeNotIm = 4
	codeVers  = 16 // BADVERS: only together with an OPT record
)

// maxAdditional bounds how many records behind the question are looked through for OPT: real clients send one or two.
const maxAdditional = 16

// question is what a query asks, as far as it matters here.
type question struct {
	name    [largestName]byte // lower case
	nameLen int
	qtype   uint16
	qclass  uint16
	end     int // of the question section in the query
	edns    bool
	version uint8
	size    int // that the client takes by UDP
}

// outcome is what became of a query, for the counters.
type outcome struct {
	code      uint16
	truncated bool
}

// respond appends the response to a query to dst and returns it; nil if the query deserves none (it is too short to
// have an ID or is a response itself, so that two servers never talk to each other for ever). udp limits the size.
// It neither keeps query nor allocates.
func respond(dst, query []byte, z *zone.Zone, udp bool) ([]byte, outcome) {
	if len(query) < headerLen || query[2]&(bitQR>>8) != 0 {
		return nil, outcome{}
	}
	flags := binary.BigEndian.Uint16(query[2:])
	var q question
	switch {
	case flags&maskOp != 0:
		return bare(dst, query, codeNotIm)
	case !q.parse(query):
		return bare(dst, query, codeForm)
	}
	m := message{start: len(dst), buf: append(dst, query[:q.end]...), nameLen: q.nameLen, edns: q.edns}
	m.limit = largestTCP
	if udp {
		m.limit = plainUDP
		if q.edns {
			m.limit = min(max(q.size, plainUDP), largestUDP)
		}
	}
	if q.edns {
		m.limit -= optLen
	}
	switch {
	case q.version > 0:
		m.code = codeVers
	case q.qclass != classIN && q.qclass != classANY:
		m.code = uint16(zone.Refused)
	default:
		m.answer(z.Find(q.name[:q.nameLen], q.qtype), binary.BigEndian.Uint16(query))
	}
	return m.finish(flags), outcome{m.code, m.truncated}
}

// bare answers what was not understood with a header alone.
func bare(dst, query []byte, code uint16) ([]byte, outcome) {
	start := len(dst)
	dst = append(dst, query[:headerLen]...)
	flags := binary.BigEndian.Uint16(query[2:])&(maskOp|bitRD) | bitQR | code
	binary.BigEndian.PutUint16(dst[start+2:], flags)
	clear(dst[start+4:])
	return dst, outcome{code: code}
}

// message is a response being written.
type message struct {
	buf        []byte
	start      int // of the message in buf
	limit      int // bytes, without OPT
	nameLen    int // of the question's name
	edns       bool
	code       uint16
	truncated  bool
	authority  bool // the answer is from a zone of ours
	an, ns, ar uint16
}

// answer writes the sections behind the question. id turns the records, so that clients that take the first one
// spread over all.
func (m *message) answer(a zone.Answer, id uint16) {
	m.code = uint16(a.Code)
	m.authority = a.Code == zone.NoError || a.Code == zone.NXDomain
	if a.Set != nil {
		m.records(a.Set, int(id))
		if !m.truncated && len(a.Set.Extra) > 0 && m.len()+len(a.Set.Extra) <= m.limit {
			m.buf = append(m.buf, a.Set.Extra...)
			m.ar += uint16(a.Set.Extras)
		}
	}
	if a.Authority != nil && m.len()+len(a.Authority.Wire) <= m.limit {
		at := len(m.buf)
		m.buf = append(m.buf, a.Authority.Wire...)
		// The owner is the zone, which is where the question's name ends.
		binary.BigEndian.PutUint16(m.buf[at:], 0xc000|uint16(headerLen+m.nameLen-a.Suffix))
		m.ns = 1
	}
}

// records writes as many whole records as there is room for, beginning with the turn-th.
func (m *message) records(s *zone.Set, turn int) {
	n := s.Len()
	for i := range n {
		k := (turn + i) % n
		from := 0
		if k > 0 {
			from = s.Ends[k-1]
		}
		record := s.Wire[from:s.Ends[k]]
		if m.len()+len(record) > m.limit {
			m.truncated = true
			return
		}
		m.buf = append(m.buf, record...)
		m.an++
	}
}

func (m *message) len() int { return len(m.buf) - m.start }

// finish writes OPT and the header.
func (m *message) finish(flags uint16) []byte {
	if m.edns {
		m.buf = append(m.buf, 0, 0, typeOPT, largestUDP>>8, largestUDP&0xff, byte(m.code>>4), 0, 0, 0, 0, 0)
		m.ar++
	}
	flags = flags&bitRD | bitQR | m.code&15
	if m.authority {
		flags |= bitAA
	}
	if m.truncated {
		flags |= bitTC
	}
	h := m.buf[m.start:]
	binary.BigEndian.PutUint16(h[2:], flags)
	binary.BigEndian.PutUint16(h[4:], 1)
	binary.BigEndian.PutUint16(h[6:], m.an)
	binary.BigEndian.PutUint16(h[8:], m.ns)
	binary.BigEndian.PutUint16(h[10:], m.ar)
	return m.buf
}

// parse reads the one question and looks for OPT; false if the query is malformed.
func (q *question) parse(query []byte) bool {
	if binary.BigEndian.Uint16(query[4:]) != 1 {
		return false
	}
	at, ok := q.readName(query)
	if !ok || len(query) < at+4 {
		return false
	}
	q.qtype, q.qclass = binary.BigEndian.Uint16(query[at:]), binary.BigEndian.Uint16(query[at+2:])
	q.end = at + 4
	at = q.end
	records := int(binary.BigEndian.Uint16(query[6:])) + int(binary.BigEndian.Uint16(query[8:])) + int(binary.BigEndian.Uint16(query[10:]))
	if records > maxAdditional {
		return false
	}
	for range records {
		owner := at
		if at, ok = skipName(query, at); !ok || len(query) < at+10 {
			return false
		}
		rtype, class := binary.BigEndian.Uint16(query[at:]), binary.BigEndian.Uint16(query[at+2:])
		version := query[at+5]
		at += 10 + int(binary.BigEndian.Uint16(query[at+8:]))
		if at > len(query) {
			return false
		}
		if rtype != typeOPT {
			continue
		}
		if q.edns || query[owner] != 0 { // a second one, or one that is not the root's (RFC 6891 §6.1.1)
			return false
		}
		q.edns, q.size, q.version = true, int(class), version
	}
	return true
}

// readName reads the question's name into lower case and returns where it ends. It has no pointers: there is nothing
// before it to point to.
func (q *question) readName(query []byte) (end int, ok bool) {
	at := headerLen
	for {
		if at >= len(query) {
			return 0, false
		}
		n := int(query[at])
		if n > 63 || at+1+n > len(query) || q.nameLen+1+n > largestName {
			return 0, false
		}
		q.name[q.nameLen] = byte(n)
		for i, c := range query[at+1 : at+1+n] {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			q.name[q.nameLen+1+i] = c
		}
		q.nameLen += 1 + n
		at += 1 + n
		if n == 0 {
			return at, true
		}
	}
}

// skipName returns where a name ends that may end with a pointer.
func skipName(query []byte, at int) (end int, ok bool) {
	for {
		if at >= len(query) {
			return 0, false
		}
		n := int(query[at])
		switch {
		case n == 0:
			return at + 1, true
		case n >= 0xc0:
			return at + 2, at+2 <= len(query)
		case n > 63:
			return 0, false
		}
		at += 1 + n
	}
}
