package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"
)

// get makes N requests, each on a connection of its own, and prints each answer. It fails if any did.
func get(args []string) error {
	fs := flag.NewFlagSet("get", flag.ContinueOnError)
	n := fs.Int("n", 1, "how many requests")
	timeout := fs.Duration("timeout", patience, "for one request")
	token := fs.String("token", "", "say this bearer token; certificates are not checked")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return errors.New("get: want one URL")
	}
	ask, err := http.NewRequest(http.MethodGet, fs.Arg(0), nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: *token != ""}}
	if *token != "" {
		ask.Header.Set("Authorization", "Bearer "+*token)
	}
	client := &http.Client{Timeout: *timeout, Transport: transport}
	var failed error
	for range *n {
		r, err := client.Do(ask)
		if err != nil {
			failed = err
			fmt.Println("error:", err)
			continue
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != http.StatusOK {
			failed = fmt.Errorf("%s: %s %v", fs.Arg(0), r.Status, err)
		}
		os.Stdout.Write(body)
	}
	return failed
}

// ask puts one question: ask udp 10.77.0.5 (the port is the server's unless given). With -size a question by UDP is
// that long, and so is its answer.
func ask(args []string) error {
	if len(args) == 0 {
		return errors.New("ask: want tcp|udp|sctp|icmp and an address")
	}
	fs := flag.NewFlagSet("ask", flag.ContinueOnError)
	size := fs.Int("size", 0, "bytes of the question and the answer (udp)")
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return errors.New("ask: want one address")
	}
	args = []string{args[0], fs.Arg(0)}
	switch args[0] {
	case "tcp", "udp":
		return askStream(args[0], withPort(args[1]), *size)
	case "sctp":
		return askSCTP(withPort(args[1]))
	case "icmp":
		return ping(args[1])
	}
	return fmt.Errorf("ask: %q: want tcp, udp, sctp or icmp", args[0])
}

func withPort(addr string) string {
	if ip, err := netip.ParseAddr(addr); err == nil {
		return netip.AddrPortFrom(ip, echoPort).String()
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return net.JoinHostPort(addr, fmt.Sprint(echoPort))
	}
	return addr
}

func askStream(network, addr string, size int) error {
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	if size > 0 {
		if _, err := c.Write(bytes.Repeat([]byte{'.'}, size)); err != nil {
			return err
		}
		buf := make([]byte, 65536)
		c.SetDeadline(time.Now().Add(patience))
		n, err := c.Read(buf)
		line, _, _ := bytes.Cut(buf[:n], []byte("\n"))
		fmt.Printf("%s size=%d\n", line, n)
		return err
	}
	line, err := question(c, bufio.NewReaderSize(c, 65536), patience)
	fmt.Print(line)
	return err
}

func question(c net.Conn, in *bufio.Reader, timeout time.Duration) (string, error) {
	c.SetDeadline(time.Now().Add(timeout))
	if _, err := fmt.Fprintln(c, "who"); err != nil {
		return "", err
	}
	return in.ReadString('\n')
}

// hold asks on one connection every beat until its standard input ends, then says how that went. The connection is
// never opened anew: a story that wants flows to survive reads broken=0.
func hold(args []string) error {
	if len(args) != 1 {
		return errors.New("hold: want one address")
	}
	c, err := net.DialTimeout("tcp", withPort(args[0]), patience)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	fmt.Println("holding", c.LocalAddr(), c.RemoteAddr())
	in, asked, longest := bufio.NewReader(c), 0, time.Duration(0)
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		start := time.Now()
		_, err := question(c, in, time.Minute)
		gap := time.Since(start)
		longest = max(longest, gap)
		if err != nil {
			fmt.Printf("asked=%d broken=1 longest=%dms\n", asked, longest.Milliseconds())
			return fmt.Errorf("the connection broke after %d answers: %w", asked, err)
		}
		asked++
		select {
		case <-ctx.Done():
			fmt.Printf("asked=%d broken=0 longest=%dms\n", asked, longest.Milliseconds())
			return nil
		case <-tick.C:
		}
	}
}

// ping sends one ICMP echo and waits for its answer.
func ping(addr string) error {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		ips, lookup := net.LookupIP(addr)
		if lookup != nil {
			return lookup
		}
		ip, _ = netip.AddrFromSlice(ips[0])
		ip = ip.Unmap()
	}
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if ip.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	c, err := net.DialTimeout(network, ip.String(), patience)
	if err != nil {
		return err
	}
	defer c.Close()
	id := uint16(os.Getpid())
	msg := make([]byte, 8, 64)
	msg[0] = request
	binary.BigEndian.PutUint16(msg[4:], id)
	binary.BigEndian.PutUint16(msg[6:], 1)
	msg = append(msg, strings.Repeat("seaway ", 8)...)
	if ip.Is4() { // the kernel fills in ICMPv6's checksum, which covers a pseudo header
		binary.BigEndian.PutUint16(msg[2:], ^checksum(msg))
	}
	start := time.Now()
	c.SetDeadline(start.Add(patience))
	if _, err := c.Write(msg); err != nil {
		return err
	}
	buf := make([]byte, 2048)
	for {
		n, _, err := c.(*net.IPConn).ReadFrom(buf) // not Read, which would leave IPv4's header in
		if err != nil {
			return err
		}
		in := buf[:n]
		if n >= 8 && in[0] == reply && binary.BigEndian.Uint16(in[4:]) == id {
			fmt.Printf("proto=icmp local=%s remote=%s rtt=%.3fms\n", ip, c.LocalAddr(), float64(time.Since(start).Microseconds())/1000)
			return nil
		}
	}
}

// checksum is the Internet checksum (RFC 1071), not yet complemented.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// dig prints what the pod's own resolver answers, sorted as it came.
func dig(args []string) error {
	if len(args) == 0 {
		return errors.New("dig: want a name and A, AAAA, SRV or PTR (the name is an address then)")
	}
	kind := "A"
	if len(args) > 1 {
		kind = strings.ToUpper(args[1])
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r := &net.Resolver{PreferGo: true}
	name := strings.TrimSuffix(args[0], ".") + "."
	if kind == "PTR" {
		names, err := r.LookupAddr(ctx, args[0])
		for _, n := range names {
			fmt.Println("PTR", n)
		}
		return err
	}
	if kind == "SRV" {
		_, srvs, err := r.LookupSRV(ctx, "", "", name)
		for _, s := range srvs {
			fmt.Printf("SRV %s:%d\n", s.Target, s.Port)
		}
		return err
	}
	network := map[string]string{"A": "ip4", "AAAA": "ip6"}[kind]
	if network == "" {
		return fmt.Errorf("dig: %q: want A, AAAA or SRV", kind)
	}
	ips, err := r.LookupNetIP(ctx, network, name)
	for _, ip := range ips {
		fmt.Println(kind, ip.Unmap())
	}
	return err
}

// addrs prints the global addresses on a link, one a line.
func addrs(args []string) error {
	link := "slice0"
	if len(args) > 0 {
		link = args[0]
	}
	i, err := net.InterfaceByName(link)
	if err != nil {
		return fmt.Errorf("link %s: %w", link, err)
	}
	list, err := i.Addrs()
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
			fmt.Println(p.Addr())
		}
	}
	return err
}
