package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"seaway.dev/seaway/fleet"
)

// Scrape is where Prometheus gets the node's metrics: those of the agent, and of the tunnel as the agent sees it.
//
// The agent is on the node's own network, where everybody on that network can dial it, so it shows nothing without a
// password: the bearer token that stands in TokenFile. While there is no such file everything is refused. The
// certificate is made anew at each start and proves nothing; it keeps the token from those who only listen.
type Scrape struct {
	Addrs     []netip.AddrPort // empty: nowhere
	TokenFile string
}

// listenAgain is how long to wait with another attempt to open a port that somebody has.
const listenAgain = 30 * time.Second

// scrape serves the node's metrics. That it cannot is a problem, and no reason to stop the rest.
func (a *agent) scrape(ctx context.Context) error {
	for ctx.Err() == nil {
		err := a.serveScrape(ctx)
		if ctx.Err() != nil || err == nil {
			break
		}
		a.setProblems("scrape", time.Now(), []fleet.Problem{{
			Reason: "NodeMetricsUnserved", Where: "node " + a.cfg.Node, Message: err.Error(),
			Next: "stop or move what has the port; it is tried again every half minute",
		}})
		select {
		case <-ctx.Done():
		case <-time.After(listenAgain):
		}
	}
	<-ctx.Done()
	return nil
}

func (a *agent) serveScrape(ctx context.Context) error {
	if len(a.cfg.Scrape.Addrs) == 0 {
		return nil
	}
	conf, err := selfSigned(a.cfg.Node, a.cfg.Scrape.Addrs)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: a.scraped(), TLSConfig: conf, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	defer srv.Close()
	failed := make(chan error, len(a.cfg.Scrape.Addrs))
	for _, at := range a.cfg.Scrape.Addrs {
		l, err := net.Listen("tcp", at.String())
		if err != nil {
			return fmt.Errorf("serve metrics: %w", err)
		}
		go func() { failed <- srv.ServeTLS(l, "", "") }() // ends with srv
	}
	a.setProblems("scrape", time.Now(), nil)
	return <-failed
}

// scraped is the one thing that the port shows.
func (a *agent) scraped() http.Handler {
	show := promhttp.HandlerFor(a.cfg.Metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		want, err := os.ReadFile(a.cfg.Scrape.TokenFile) // each time: the kubelet changes it
		want = bytes.TrimSpace(want)
		got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		switch {
		case errors.Is(err, os.ErrNotExist) || err == nil && len(want) == 0:
			refuse(w, "metrics are shown to nobody yet: make the Secret seaway-metrics with a key token in seaway-system")
		case err != nil:
			a.log.Warn("read the password for metrics", "err", err)
			refuse(w, "the password cannot be read: see the agent's log")
		case !ok || subtle.ConstantTimeCompare([]byte(got), want) != 1:
			refuse(w, "send the token of the Secret seaway-metrics in seaway-system as bearer token")
		default:
			show.ServeHTTP(w, r)
		}
	})
	return mux
}

func refuse(w http.ResponseWriter, why string) {
	w.Header().Set("WWW-Authenticate", "Bearer")
	http.Error(w, why, http.StatusUnauthorized)
}

func selfSigned(node string, addrs []netip.AddrPort) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key for metrics: %w", err)
	}
	now := time.Now()
	c := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "seaway-agent"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0), // nobody can check it; the process is younger
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, DNSNames: []string{node}}
	for _, at := range addrs {
		c.IPAddresses = append(c.IPAddresses, at.Addr().AsSlice())
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate for metrics: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, nil
}
