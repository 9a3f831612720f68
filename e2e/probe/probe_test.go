package main

import (
	"bufio"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestSCTPPacketsCarryTheirChecksum(t *testing.T) {
	b := buildSCTP(40132, 7001, sctpInit, "who")
	src, dst, chunk, err := parseSCTP(b)
	if err != nil || src != 40132 || dst != 7001 || chunk != sctpInit {
		t.Fatalf("parse = %d %d %d %v", src, dst, chunk, err)
	}
	b[15] ^= 1
	if _, _, _, err := parseSCTP(b); err == nil {
		t.Error("a spoilt packet was taken for a good one")
	}
}

func TestDatagramsHaveGoodChecksumsAndTheirMark(t *testing.T) {
	for _, s := range []shot{
		{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.2"), "a>b"},
		{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), "a>b"},
	} {
		b := datagram(s)
		if mark, ok := findMark(b); !ok || mark != "a>b" {
			t.Errorf("%v: mark %q %v", s, mark, ok)
		}
		head, addrs := 20, 12
		if s.dst.Is6() {
			head, addrs = 40, 8
		} else if checksum(b[:20]) != 0xffff {
			t.Errorf("%v: wrong IPv4 header checksum", s)
		}
		pseudo := append([]byte{}, b[addrs:head]...)
		pseudo = append(pseudo, 0, 17, 0, byte(len(b)-head))
		if checksum(append(pseudo, b[head:]...)) != 0xffff {
			t.Errorf("%v: wrong UDP checksum", s)
		}
	}
}

func TestShotsAreReadStrictly(t *testing.T) {
	good := "10.0.0.1 10.0.0.2 x\n\nfd00::1 fd00::2 y\n"
	shots, err := parseShots(bufio.NewScanner(strings.NewReader(good)))
	if err != nil || len(shots) != 2 {
		t.Fatalf("%v %v", shots, err)
	}
	for _, bad := range []string{"10.0.0.1 10.0.0.2", "x 10.0.0.2 m", "10.0.0.1 fd00::2 m"} {
		if _, err := parseShots(bufio.NewScanner(strings.NewReader(bad))); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestAnErrorThatQuotesAProbeIsNoSighting(t *testing.T) {
	s := shot{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.2"), "m"}
	probe := datagram(s)
	quote := append(append([]byte{}, probe[:20]...), make([]byte, 8)...)
	quote[9] = 1 // ICMP
	quote = append(quote, probe...)
	if _, ok := findMark(quote); !ok || !isControl(quote) {
		t.Error("an ICMP error with a mark in it was taken for a probe")
	}
	if isControl(probe) {
		t.Error("a probe was taken for an ICMP message")
	}
}

func TestAnswersArePrintedAsTheyCame(t *testing.T) {
	m := new(dns.Msg).SetQuestion("db.shop.svc.clusterset.local.", dns.TypeA)
	for _, a := range []string{"10.77.0.9", "10.77.0.1"} {
		m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(a)})
	}
	m.Truncated = true
	if got, want := answered(m), "NOERROR truncated=true edns=0 answers=2\nA 10.77.0.9\nA 10.77.0.1\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	m.SetEdns0(1232, false)
	m.Rcode = dns.RcodeNameError
	if got := answered(m); !strings.HasPrefix(got, "NXDOMAIN truncated=true edns=1232 answers=2\n") {
		t.Error(got)
	}
}
