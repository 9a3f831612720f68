package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// serve answers on every transport until it is asked to stop.
func serve([]string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	fault := make(chan error, 8)
	start := func(f func() error) {
		go func() { fault <- f() }()
	}
	start(serveHTTP)
	start(serveTCP)
	start(serveUDP)
	start(serveSCTP)
	log := newSightings()
	start(log.sniff)
	start(log.serve)
	fmt.Println("probe: serving,", identity())
	select {
	case <-ctx.Done():
		return nil
	case err := <-fault:
		return err
	}
}

func answer(proto string, local, remote net.Addr) string {
	return fmt.Sprintf("proto=%s %s local=%s remote=%s\n", proto, identity(), local, remote)
}

// serveHTTP answers everything alike, but /ready after somebody asked for /sick: the pod is not ready then, and goes on
// answering; /well takes that back.
func serveHTTP() error {
	var sick atomic.Bool
	h := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/sick", "/well":
			sick.Store(r.URL.Path == "/sick")
		case "/ready":
			if sick.Load() {
				http.Error(w, "sick", http.StatusServiceUnavailable)
				return
			}
		}
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		remote, _ := net.ResolveTCPAddr("tcp", r.RemoteAddr)
		fmt.Fprint(w, answer("http", local, remote))
	}
	s := &http.Server{Addr: fmt.Sprintf(":%d", httpPort), Handler: http.HandlerFunc(h), ReadHeaderTimeout: patience}
	s.SetKeepAlivesEnabled(false)
	return s.ListenAndServe()
}

// serveTCP answers each line with a line, so that one connection can be asked for as long as it lives.
func serveTCP() error {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", echoPort))
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			for in := bufio.NewScanner(c); in.Scan(); { // of at most 64 KiB
				if _, err := fmt.Fprint(c, answer("tcp", c.LocalAddr(), c.RemoteAddr())); err != nil {
					return
				}
			}
		}()
	}
}

func serveUDP() error {
	c, err := net.ListenUDP("udp", &net.UDPAddr{Port: echoPort})
	if err != nil {
		return err
	}
	buf := make([]byte, 65536)
	for {
		n, from, err := c.ReadFromUDP(buf)
		if err != nil {
			return err
		}
		if _, isProbe := findMark(buf[:n]); isProbe {
			continue // the sniffer's business; an answer to a forged source would only be noise
		}
		text := []byte(answer("udp", c.LocalAddr(), from))
		if n > 0 && buf[0] == '#' { // a question that wants to be told from others
			text = append(append(bytes.Clone(buf[:n]), ' '), text...)
		}
		if n > len(text) { // as long as the question
			text = append(text, bytes.Repeat([]byte{'.'}, n-len(text))...)
		}
		if _, err := c.WriteToUDP(text, from); err != nil && !transient(err) {
			return err
		}
	}
}

// transient errors say something of one peer, not of the socket.
func transient(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) ||
		errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL)
}

// pause reaps what the pod's processes leave behind; it is the program of the sandbox image.
func pause([]string) error {
	c := make(chan os.Signal, 16)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for s := range c {
		if s != syscall.SIGCHLD {
			return nil
		}
		for {
			if pid, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 {
				break
			}
		}
	}
	return nil
}

// beat is how often hold asks.
const beat = 20 * time.Millisecond
