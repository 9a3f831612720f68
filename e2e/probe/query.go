package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"net"
	"strings"

	"github.com/miekg/dns"
)

// query puts one question to the pod's name server and prints the answer as it came: the code, whether it was cut short,
// what the server takes by UDP (0: no EDNS), and the records in their order.
//
//	query [-tcp] [-size 1232] [-at SERVER] NAME [TYPE]
func query(args []string) error {
	fs := flag.NewFlagSet("query", flag.ContinueOnError)
	tcp := fs.Bool("tcp", false, "by TCP")
	size := fs.Uint("size", 0, "bytes that are taken by UDP, told by EDNS; 0: none is told")
	at := fs.String("at", "", "address of the name server; the pod's own if empty")
	if err := fs.Parse(args); err != nil {
		return err
	}
	kind, ok := dns.StringToType[strings.ToUpper(cmp.Or(fs.Arg(1), "A"))]
	if fs.NArg() < 1 || !ok || *size > dns.MaxMsgSize {
		return errors.New("query: want a name and a type, such as A, SRV or TXT")
	}
	if *at == "" {
		conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
		if err != nil {
			return err
		}
		if len(conf.Servers) == 0 {
			return errors.New("query: /etc/resolv.conf names no server")
		}
		*at = conf.Servers[0]
	}
	name, err := fs.Arg(0), error(nil)
	if kind == dns.TypePTR {
		if name, err = dns.ReverseAddr(name); err != nil {
			return err
		}
	}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	c := &dns.Client{Net: map[bool]string{true: "tcp", false: "udp"}[*tcp], Timeout: patience}
	if *size > 0 {
		m.SetEdns0(uint16(*size), false)
	}
	r, _, err := c.Exchange(m, net.JoinHostPort(*at, "53"))
	if err != nil {
		return err
	}
	fmt.Print(answered(r))
	if r.Rcode != dns.RcodeSuccess {
		return errors.New(dns.RcodeToString[r.Rcode])
	}
	return nil
}

// answered is a message for people and for stories.
func answered(r *dns.Msg) string {
	var b strings.Builder
	edns := uint16(0)
	if o := r.IsEdns0(); o != nil {
		edns = o.UDPSize()
	}
	fmt.Fprintf(&b, "%s truncated=%v edns=%d answers=%d\n", dns.RcodeToString[r.Rcode], r.Truncated, edns, len(r.Answer))
	for _, rr := range r.Answer {
		fmt.Fprintf(&b, "%s %s\n", dns.TypeToString[rr.Header().Rrtype], strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return b.String()
}
