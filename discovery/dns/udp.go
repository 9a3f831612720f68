package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"seaway.dev/seaway/discovery/zone"
)

// readers is how many queries by UDP are in hand at a time on an address: while one is worked on, the next is read. A
// flood fills the socket's buffer and nothing else.
const readers = 2

// largestQuery by UDP, bytes: a longer one is cut and so malformed.
const largestQuery = 4096

// Limits of what a reader remembers. A query longer than largestKept is no usual one: the longest name, a header, an OPT
// record without options. Beyond maxKept questions others are answered as if for the first time.
const (
	largestKept = 12 + 255 + 4 + 11
	maxKept     = 4096
)

// turns is how many orders of its records an answer is remembered in: every number up to six divides it, so that each
// record comes first as often as any other.
const turns = 60

// answers are the packed responses that one reader remembers. Names are asked for again and again, and packing a
// response costs ten times what finding it does. What is remembered is good for one zone only.
//
//	the query without its ID ──▶ turn (ID mod 60) ──▶ the response, to be sent under the query's ID
type answers struct {
	zone *zone.Zone
	kept map[string]*kept
}

// kept is what is remembered of one question.
type kept struct {
	turns [][]byte // one, or [turns] where there are several records; nil ones were not asked for yet
	code  int
	cut   bool // truncated
}

// find returns the response to a query if it is remembered. It is good until the next call.
func (a *answers) find(z *zone.Zone, query []byte) ([]byte, *kept) {
	if a.zone != z {
		a.zone, a.kept = z, map[string]*kept{}
		return nil, nil
	}
	if len(query) < headerLen || len(query) > largestKept {
		return nil, nil
	}
	k := a.kept[string(query[2:])]
	if k == nil {
		return nil, nil
	}
	out := k.turns[turnOf(query)%len(k.turns)]
	if out == nil {
		return nil, nil
	}
	copy(out, query[:2])
	return out, k
}

// keep remembers the response to a query. Only answers with records are kept: they are few, and what does not exist is
// asked for in endless variety.
func (a *answers) keep(query, response []byte, r *dns.Msg) {
	if len(query) > largestKept || r.Rcode != dns.RcodeSuccess || len(r.Answer) == 0 {
		return
	}
	k := a.kept[string(query[2:])]
	if k == nil {
		if len(a.kept) >= maxKept {
			return
		}
		n := 1
		if len(r.Answer) > 1 || r.Truncated {
			n = turns
		}
		k = &kept{turns: make([][]byte, n), code: r.Rcode, cut: r.Truncated}
		a.kept[string(query[2:])] = k
	}
	k.turns[turnOf(query)%len(k.turns)] = response
}

func turnOf(query []byte) int { return int(binary.BigEndian.Uint16(query)) % turns }

// serveUDP answers queries from a socket until ctx ends or the socket fails.
func (s *server) serveUDP(ctx context.Context, c *net.UDPConn) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	var g errgroup.Group
	for range readers {
		g.Go(func() error {
			buffer, known := make([]byte, largestQuery), new(answers)
			for {
				n, from, err := c.ReadFromUDPAddrPort(buffer)
				if err != nil {
					if ctx.Err() != nil {
						return nil
					}
					if errors.Is(err, net.ErrClosed) {
						return err
					}
					continue // what the kernel heard about an earlier response: nobody listens there any more
				}
				s.one(c, buffer[:n], from, known)
			}
		})
	}
	return g.Wait()
}

// one answers one query by UDP.
func (s *server) one(c *net.UDPConn, query []byte, from netip.AddrPort, known *answers) {
	z := s.current()
	out, k := known.find(z, query)
	code, cut := 0, false
	if k != nil {
		code, cut = k.code, k.cut
	} else {
		r := s.message(query, z, protoUDP)
		if r == nil {
			s.metrics.dropped[protoUDP].Inc()
			return
		}
		var err error
		if out, err = r.Pack(); err != nil {
			s.metrics.failed.Inc()
			return
		}
		known.keep(query, out, r)
		code, cut = r.Rcode, r.Truncated
	}
	s.metrics.response(protoUDP, code)
	if cut {
		s.metrics.truncated.Inc()
	}
	if _, err := c.WriteToUDPAddrPort(out, from); err != nil && !gone(err) {
		s.metrics.failed.Inc() // the client is gone or the buffer full: it asks again
	}
}

// message works out the response to a message; nil if it is not to be answered at all.
func (s *server) message(b []byte, z *zone.Zone, proto int) *dns.Msg {
	if len(b) < headerLen {
		return nil
	}
	var word [6]uint16
	for i := range word {
		word[i] = binary.BigEndian.Uint16(b[2*i:])
	}
	h := dns.Header{Id: word[0], Bits: word[1], Qdcount: word[2], Ancount: word[3], Nscount: word[4], Arcount: word[5]}
	code := dns.RcodeFormatError
	switch accept(h) {
	case dns.MsgIgnore:
		return nil
	case dns.MsgRejectNotImplemented:
		code = dns.RcodeNotImplemented
	case dns.MsgAccept:
		q := new(dns.Msg)
		if q.Unpack(b) == nil {
			return respond(q, z, proto == protoUDP)
		}
	}
	r := new(dns.Msg)
	r.Id, r.Response, r.Rcode = h.Id, true, code
	r.Opcode = int(h.Bits>>11) & 15
	r.RecursionDesired = h.Bits&(1<<8) != 0
	return r
}
