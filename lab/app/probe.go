package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
)

// verdict of a probe, and the exit code that goes with it.
type verdict int

const (
	open verdict = iota
	closed
	silent
	impossible
)

func (v verdict) String() string { return [...]string{"open", "closed", "timeout", "error"}[v] }

// probe tries an address. Exit code 0: open, 1: closed (somebody refused),
// 2: timeout (nobody answered), 3: could not try.
func probe(args []string) int {
	fs := flag.NewFlagSet("probe", flag.ExitOnError)
	proto := fs.String("proto", "tcp", "tcp, udp, icmp or sctp")
	timeout := fs.Duration("timeout", 2*time.Second, "how long to wait for an answer")
	count := fs.Int("n", 1, "how many times; the exit code is the last one's")
	target, rest := splitArgs(args)
	_ = fs.Parse(rest)
	try, ok := map[string]func(string, time.Duration) (verdict, error){"tcp": probeTCP, "udp": probeUDP, "icmp": probeICMP, "sctp": probeSCTP}[*proto]
	if target == "" || !ok {
		fmt.Fprintln(os.Stderr, "usage: lab-app probe ADDRESS[:PORT] [-proto tcp|udp|icmp|sctp] [-timeout 2s] [-n N]")
		return int(impossible)
	}
	v := impossible
	for range *count {
		start := time.Now()
		var err error
		v, err = try(target, *timeout)
		took := time.Since(start).Round(10 * time.Microsecond)
		if err != nil {
			fmt.Printf("%s %s %s %s (%v)\n", v, *proto, target, took, err)
		} else {
			fmt.Printf("%s %s %s %s\n", v, *proto, target, took)
		}
	}
	return int(v)
}

// judge tells a refusal from silence. An ICMP "unreachable" is a refusal too.
func judge(err error) (verdict, error) {
	var ne net.Error
	switch {
	case err == nil:
		return open, nil
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &ne) && ne.Timeout(),
		errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINPROGRESS):
		return silent, nil
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return closed, nil
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.ENOPROTOOPT):
		return closed, err
	}
	return impossible, err
}

func probeTCP(target string, timeout time.Duration) (verdict, error) {
	c, err := net.DialTimeout("tcp", target, timeout)
	if err == nil {
		_ = c.Close()
	}
	return judge(err)
}

// probeUDP counts as open only if an answer comes: nothing else can be known.
func probeUDP(target string, timeout time.Duration) (verdict, error) {
	c, err := net.DialTimeout("udp", target, timeout)
	if err != nil {
		return judge(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(timeout))
	if _, err := c.Write([]byte("probe")); err != nil {
		return judge(err)
	}
	_, err = c.Read(make([]byte, 2048))
	return judge(err)
}

func probeICMP(target string, timeout time.Duration) (verdict, error) {
	a, err := lookup(strings.Trim(target, "[]"))
	if err != nil {
		return impossible, err
	}
	network, request, answer := "ip4:icmp", byte(8), byte(0)
	if a.Is6() {
		network, request, answer = "ip6:ipv6-icmp", 128, 129
	}
	c, err := net.Dial(network, a.String())
	if err != nil {
		return judge(err)
	}
	defer c.Close()
	id := os.Getpid() & 0xffff
	m := []byte{request, 0, 0, 0, byte(id >> 8), byte(id), 0, 1, 's', 'e', 'a', 'w', 'a', 'y'}
	if a.Is4() { // the kernel sums up ICMPv6 itself
		sum := checksum(m)
		m[2], m[3] = byte(sum>>8), byte(sum)
	}
	_ = c.SetDeadline(time.Now().Add(timeout))
	if _, err := c.Write(m); err != nil {
		return judge(err)
	}
	b := make([]byte, 2048)
	for {
		n, err := c.Read(b)
		if err != nil {
			return judge(err)
		}
		r := b[:n]
		if a.Is4() && n > 20 { // IPv4 comes with its header
			r = r[int(r[0]&15)*4:]
		}
		if len(r) >= 8 && r[0] == answer && r[4] == m[4] && r[5] == m[5] {
			return open, nil
		}
	}
}

func probeSCTP(target string, timeout time.Duration) (verdict, error) {
	if !sctpAvailable() {
		return impossible, errors.New("this kernel has no SCTP")
	}
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return impossible, err
	}
	a, err := lookup(host)
	if err != nil {
		return impossible, err
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		return impossible, err
	}
	done := make(chan error, 1)
	go func() { done <- dialSCTP(netip.AddrPortFrom(a, uint16(n))) }()
	select {
	case err := <-done:
		return judge(err)
	case <-time.After(timeout):
		return silent, nil
	}
}

// lookup resolves a name or reads an address.
func lookup(host string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap(), nil
	}
	as, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip", host)
	if err != nil {
		return netip.Addr{}, err
	}
	return as[0].Unmap(), nil
}

// checksum of the internet protocols.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, b := range parts {
		for i, x := range b {
			if i%2 == 0 {
				sum += uint32(x) << 8
			} else {
				sum += uint32(x)
			}
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
