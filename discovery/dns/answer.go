package dns

import (
	"github.com/miekg/dns"

	"seaway.dev/seaway/discovery/zone"
)

// largestUDP is the size of responses by UDP that passes everywhere without fragments, bytes, as the DNS Flag Day of
// 2020 found.
const largestUDP = 1232

// maxRecords bounds how many records a query may carry besides its question: real clients send one or two.
const maxRecords = 16

// accept tells what to do with a message by its header alone.
func accept(h dns.Header) dns.MsgAcceptAction {
	const response, opcode = 1 << 15, 15 << 11
	switch {
	case h.Bits&response != 0: // answered, two servers might talk to each other for ever
		return dns.MsgIgnore
	case h.Bits&opcode != dns.OpcodeQuery:
		return dns.MsgRejectNotImplemented
	case h.Qdcount != 1 || int(h.Ancount)+int(h.Nscount)+int(h.Arcount) > maxRecords:
		return dns.MsgReject
	}
	return dns.MsgAccept
}

// respond answers a query. udp limits the size. Records of the zone are in it, so that the response is to be packed and
// not changed.
func respond(q *dns.Msg, z *zone.Zone, udp bool) *dns.Msg {
	r := new(dns.Msg)
	r.SetReply(q)
	opt, ok := edns(q)
	if !ok || len(q.Question) != 1 { // a message that ends after its header gets here without a question
		r.Rcode = dns.RcodeFormatError
		return r
	}
	limit := dns.MaxMsgSize
	if udp {
		limit = dns.MinMsgSize
	}
	if opt != nil {
		own := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		own.SetUDPSize(largestUDP)
		r.Extra = append(r.Extra, own)
		if udp {
			limit = min(max(int(opt.UDPSize()), dns.MinMsgSize), largestUDP)
		}
	}
	switch class := q.Question[0].Qclass; {
	case opt != nil && opt.Version() > 0:
		r.Rcode = dns.RcodeBadVers
	case class != dns.ClassINET && class != dns.ClassANY:
		r.Rcode = dns.RcodeRefused
	default:
		answer(r, z.Lookup(q.Question[0].Name, q.Question[0].Qtype), limit)
	}
	return r
}

// answer fills a response, which has at most an OPT record so far, with what the zone says.
func answer(r *dns.Msg, a zone.Answer, limit int) {
	asked := r.Question[0].Name
	r.Rcode = a.Code
	r.Authoritative = a.Code == dns.RcodeSuccess || a.Code == dns.RcodeNameError
	// The ID turns the records, so that clients that take the first one spread over all that are near.
	near := len(a.Records)
	if a.Near > 0 {
		near = a.Near
	}
	for i := range a.Records {
		if i < near {
			i = (int(r.Id) + i) % near
		}
		r.Answer = append(r.Answer, owned(a.Records[i], asked))
	}
	if a.Authority != nil {
		r.Ns = append(r.Ns, owned(a.Authority, asked))
	}
	r.Compress = true
	if len(a.Extra) > 0 { // as a whole or not at all: a client can ask for the addresses, and need not ask again by TCP
		r.Extra = append(r.Extra, a.Extra...)
		if r.Len() > limit {
			r.Extra = r.Extra[:len(r.Extra)-len(a.Extra)]
		}
	}
	r.Truncate(limit)
}

// owned returns a record with its owner, which is the name asked for or a zone it is in, in the case of the question:
// some resolvers mix the case to recognise answers to their questions.
func owned(rr dns.RR, asked string) dns.RR {
	owner := asked[len(asked)-len(rr.Header().Name):]
	if rr.Header().Name == owner {
		return rr
	}
	rr = dns.Copy(rr)
	rr.Header().Name = owner
	return rr
}

// edns returns a query's OPT record, nil if it has none; false if it has several or a misplaced one (RFC 6891 §6.1.1).
func edns(q *dns.Msg) (*dns.OPT, bool) {
	var found *dns.OPT
	for _, rr := range q.Extra {
		opt, ok := rr.(*dns.OPT)
		if !ok {
			continue
		}
		if found != nil || opt.Hdr.Name != "." {
			return nil, false
		}
		found = opt
	}
	return found, true
}
