package controller

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// accepted tells whether an agent that trusts a bundle accepts a server's certificate at a time.
func accepted(t *testing.T, cert *tls.Certificate, bundle []byte, now time.Time) error {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		t.Fatal("an empty bundle")
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, DNSName: Service})
	return err
}

// TestAuthorityChangesWithoutAGap: for thirty years, in which the authority changes again and again, an agent that hears of
// authorities twenty days late accepts each certificate that a controller shows, and so does one that is up to date of a
// controller that is twenty days behind.
func TestAuthorityChangesWithoutAGap(t *testing.T) {
	at := []net.IP{net.ParseIP("10.96.0.7")}
	now := time.Unix(1_800_000_000, 0)
	data, _, err := refresh(nil, "seaway-system", at, now)
	if err != nil {
		t.Fatal(err)
	}
	authorities, servers := 0, 0
	for range 30 * 18 {
		now = now.Add(20 * 24 * time.Hour)
		next, changed, err := refresh(data, "seaway-system", at, now)
		if err != nil {
			t.Fatal(err)
		}
		if changed != (string(next[caCert]) != string(data[caCert]) || string(next[serverCert]) != string(data[serverCert])) {
			t.Fatalf("%v: changed %v", now, changed)
		}
		if string(next[caKey]) != string(data[caKey]) {
			authorities++
		}
		if string(next[serverKey]) != string(data[serverKey]) {
			servers++
		}
		for _, pair := range [][2]map[string][]byte{{next, data}, {data, next}, {next, next}} {
			cert, err := tls.X509KeyPair(pair[0][serverCert], pair[0][serverKey])
			if err != nil {
				t.Fatal(err)
			}
			if err := accepted(t, &cert, pair[1][caCert], now); err != nil {
				t.Fatalf("%v, after %d authorities and %d servers' certificates: %v", now, authorities, servers, err)
			}
		}
		data = next
	}
	if authorities < 3 || servers < 150 {
		t.Errorf("%d authorities and %d servers' certificates in thirty years", authorities, servers)
	}
}

// TestExpiredCertificateIsReplaced: a cluster's API server refuses writes until a controller's certificate has ended. Minutes
// after it is well again the running controller shows a good one, which agents accept by what is published.
func TestExpiredCertificateIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refuse atomic.Bool
		c := fake.NewClientBuilder().WithInterceptorFuncs(interceptor.Funcs{
			Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
				if refuse.Load() {
					return errors.New("etcdserver: mvcc: database space exceeded")
				}
				return c.Update(ctx, o, opts...)
			},
		}).Build()
		a, err := newAuthority(c, "seaway-system", slog.New(slog.DiscardHandler)).open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = a.run(ctx) }()
		good := func() error {
			var cm corev1.ConfigMap
			if err := c.Get(t.Context(), client.ObjectKey{Namespace: "seaway-system", Name: AuthorityMap}, &cm); err != nil {
				t.Fatal(err)
			}
			cert, err := a.certificate(nil)
			if err != nil {
				return err
			}
			return accepted(t, cert, []byte(cm.Data[AuthorityKey]), time.Now())
		}
		refuse.Store(true)
		time.Sleep(serverLife + 24*time.Hour)
		if good() == nil {
			t.Fatal("the certificate has not ended: the test cannot fail")
		}
		refuse.Store(false)
		time.Sleep(renewAgain + time.Minute)
		synctest.Wait()
		if err := good(); err != nil {
			t.Error(err)
		}
		cancel()
		synctest.Wait()
	})
}
