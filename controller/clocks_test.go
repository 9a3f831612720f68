package controller

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"
)

// TestClocksOfNodes: an agent whose clock is a minute off takes the certificate that its controller has made just now,
// and a replica whose clock is a minute off, having taken over, makes no new one.
func TestClocksOfNodes(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	at := []net.IP{net.ParseIP("10.96.0.7")}
	data, changed, err := refresh(nil, "seaway-system", at, now)
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	pair, err := tls.X509KeyPair(data[serverCert], data[serverKey])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data[caCert]) {
		t.Fatal("no authority")
	}
	for _, ahead := range []time.Duration{-10 * time.Minute, -time.Minute, 0, time.Minute} {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now.Add(ahead), DNSName: "10.96.0.7"})
		if good := ahead >= -time.Minute; (err == nil) != good {
			t.Errorf("an agent whose clock is %s ahead: %v", ahead, err)
		}
		_, changed, err := refresh(data, "seaway-system", at, now.Add(ahead))
		if good := ahead >= -time.Minute; err != nil || changed == good {
			t.Errorf("a replica whose clock is %s ahead makes a new certificate: %v, %v", ahead, changed, err)
		}
	}
}
