package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// serve listens on every address of every family. A port that cannot be had is
// an error, except SCTP where the kernel has none.
func serve(args []string) int {
	fs := flag.NewFlagSet("serve", flag.ExitOnError)
	httpAddr := fs.String("http", ":8080", "HTTP address; empty: none")
	tcpAddr := fs.String("tcp", ":9000", "TCP echo address; empty: none")
	udpAddr := fs.String("udp", ":9001", "UDP echo address; empty: none")
	sctpAddr := fs.String("sctp", ":9002", "SCTP echo address; empty: none")
	_ = fs.Parse(args)
	failed := make(chan error, 4)
	start := func(what, addr string, run func(string) error) {
		if addr == "" {
			return
		}
		go func() { failed <- fmt.Errorf("%s on %s: %w", what, addr, run(addr)) }()
		fmt.Println("serving", what, "on", addr)
	}
	start("http", *httpAddr, serveHTTP)
	start("tcp", *tcpAddr, serveTCP)
	start("udp", *udpAddr, serveUDP)
	if sctpAvailable() {
		start("sctp", *sctpAddr, serveSCTP)
	} else {
		fmt.Println("not serving sctp: this kernel has none")
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-term:
		return 0
	case err := <-failed:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
}

// identity is what every answer begins with, so that a test sees who answered.
func identity() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("pod=%s cluster=%s", cmp.Or(os.Getenv("POD_NAME"), host), cmp.Or(os.Getenv("CLUSTER"), "-"))
}

func serveHTTP(addr string) error {
	return (&http.Server{Addr: addr, Handler: httpHandler(), ReadHeaderTimeout: 10 * time.Second}).ListenAndServe()
}

func httpHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", hello)
	mux.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/blob", blob)
	mux.HandleFunc("/burn", burn)
	return mux
}

func hello(w http.ResponseWriter, r *http.Request) {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if r.URL.Query().Get("format") == "json" || r.Header.Get("Accept") == "application/json" {
		host, _ := os.Hostname()
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"pod":%q,"cluster":%q,"local":%q,"remote":%q,"host":%q,"path":%q}`+"\n",
			cmp.Or(os.Getenv("POD_NAME"), host), os.Getenv("CLUSTER"), local.String(), r.RemoteAddr, r.Host, r.URL.Path)
		return
	}
	fmt.Fprintf(w, "%s local=%s remote=%s path=%s\n", identity(), local, r.RemoteAddr, r.URL.Path)
}

// number reads a query parameter.
func number(r *http.Request, key string, def int) int {
	n, err := strconv.Atoi(r.URL.Query().Get(key))
	if err != nil || n < 0 {
		return def
	}
	return n
}

func blob(w http.ResponseWriter, r *http.Request) {
	mib := number(r, "mb", 1)
	w.Header().Set("Content-Length", strconv.Itoa(mib<<20))
	b := make([]byte, 1<<20)
	for range mib {
		if _, err := w.Write(b); err != nil {
			return
		}
	}
}

func burn(w http.ResponseWriter, r *http.Request) {
	ms := number(r, "ms", 10)
	for end := time.Now().Add(time.Duration(ms) * time.Millisecond); time.Now().Before(end); {
	}
	fmt.Fprintln(w, "burnt", ms, "ms")
}

func serveTCP(addr string) error {
	l, err := net.Listen("tcp", addr)
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
			fmt.Fprintf(c, "%s local=%s remote=%s\n", identity(), c.LocalAddr(), c.RemoteAddr())
			_, _ = io.Copy(c, c)
		}()
	}
}

// serveUDP answers each datagram with who it is, who asked, and the datagram.
func serveUDP(addr string) error {
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	b := make([]byte, 65536)
	for {
		n, from, err := c.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err == nil {
			_, _ = c.WriteTo(fmt.Appendf(nil, "%s remote=%s %s", identity(), from, b[:n]), from)
		}
	}
}
