package controller

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Lives of the certificates by which agents know the controller. Both are renewed when a third is left. Agents hear of a
// new authority minutes after it is published, so servers' certificates stay from the old one until they are renewed
// themselves; both are trusted meanwhile.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	serverLife    = 90 * 24 * time.Hour
	renewEvery    = time.Hour        // how often to look
	renewAgain    = 10 * time.Minute // how soon after it failed
)

// authority is the controller's own certificate authority and the server's certificate from it. They lie in a Secret;
// the authority's certificate is published in a ConfigMap.
type authority struct {
	client    client.Client
	namespace string
	log       *slog.Logger
	now       func() time.Time
	current   atomic.Pointer[tls.Certificate]
}

func newAuthority(c client.Client, namespace string, log *slog.Logger) *authority {
	return &authority{client: c, namespace: namespace, log: log, now: time.Now}
}

// Keys of the Secret.
const (
	caCert     = "ca.crt" // the authority's certificate, then older ones that still count
	caKey      = "ca.key" // of the first of them
	serverCert = "tls.crt"
	serverKey  = "tls.key"
)

// open reads or makes the certificates and publishes the authority's.
func (a *authority) open(ctx context.Context) (*authority, error) {
	var s corev1.Secret
	key := client.ObjectKey{Namespace: a.namespace, Name: TLSSecret}
	err := a.client.Get(ctx, key, &s)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return nil, fmt.Errorf("secret %s: %w", key, err)
	}
	data, changed, err := refresh(s.Data, a.namespace, a.addresses(ctx), a.now())
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", key, err)
	}
	if changed {
		s.Namespace, s.Name, s.Data = a.namespace, TLSSecret, data
		s.Labels = map[string]string{componentLabel: componentValue}
		if missing {
			err = a.client.Create(ctx, &s)
		} else {
			err = a.client.Update(ctx, &s)
		}
		if err != nil {
			return nil, fmt.Errorf("write secret %s: %w", key, err)
		}
		a.log.Info("new certificate for the agents' streams", "secret", key.String())
	}
	if err := a.publish(ctx, data[caCert]); err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(data[serverCert], data[serverKey])
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", key, err)
	}
	a.current.Store(&cert)
	return a, nil
}

// addresses are those of the Service that agents dial: on the host's network they may not use the cluster's names.
func (a *authority) addresses(ctx context.Context) []net.IP {
	var svc corev1.Service
	if err := a.client.Get(ctx, client.ObjectKey{Namespace: a.namespace, Name: Service}, &svc); err != nil {
		a.log.Warn("the agents' Service is not known: the certificate has only names", "err", err)
		return nil
	}
	var out []net.IP
	for _, ip := range svc.Spec.ClusterIPs {
		if parsed := net.ParseIP(ip); parsed != nil {
			out = append(out, parsed)
		}
	}
	return out
}

// publish puts the authority's certificate where agents find it.
func (a *authority) publish(ctx context.Context, bundle []byte) error {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: AuthorityMap}}
	err := a.client.Get(ctx, client.ObjectKeyFromObject(cm), cm)
	if err == nil && cm.Data[AuthorityKey] == string(bundle) {
		return nil
	}
	cm.Data = map[string]string{AuthorityKey: string(bundle)}
	switch {
	case apierrors.IsNotFound(err):
		cm.Labels = map[string]string{componentLabel: componentValue}
		err = a.client.Create(ctx, cm)
	case err == nil:
		err = a.client.Update(ctx, cm)
	}
	if err != nil {
		return fmt.Errorf("publish the authority in configmap %s/%s: %w", a.namespace, AuthorityMap, err)
	}
	return nil
}

// run renews the certificates in time until ctx ends.
func (a *authority) run(ctx context.Context) error {
	pause := renewEvery
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = renewEvery
		if _, err := a.open(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("certificate not renewed; trying again", "err", err)
			pause = renewAgain
		}
	}
}

func (a *authority) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := a.current.Load(); c != nil {
		return c, nil
	}
	return nil, errors.New("no certificate yet")
}

// refresh returns the certificates as they should be at a time: those given, where they are sound and last, else new
// ones.
func refresh(have map[string][]byte, namespace string, at []net.IP, now time.Time) (map[string][]byte, bool, error) {
	out := map[string][]byte{caCert: have[caCert], caKey: have[caKey], serverCert: have[serverCert], serverKey: have[serverKey]}
	ca, err := tls.X509KeyPair(out[caCert], out[caKey])
	signer := ca
	newCA := err != nil || spent(ca.Leaf, now)
	if newCA {
		old := ca
		cert, key, err := issue(now, authorityLife, namespace, nil, nil)
		if err != nil {
			return nil, false, err
		}
		out[caCert] = append(cert, stillValid(out[caCert], now)...)
		out[caKey] = key
		if ca, err = tls.X509KeyPair(out[caCert], out[caKey]); err != nil {
			return nil, false, fmt.Errorf("new authority: %w", err)
		}
		if signer = old; old.Leaf == nil || now.After(old.Leaf.NotAfter) || now.Before(old.Leaf.NotBefore) {
			signer = ca // nobody can trust an old one
		}
	}
	leaf, err := tls.X509KeyPair(out[serverCert], out[serverKey])
	if err == nil && !spent(leaf.Leaf, now) && vouched(leaf.Leaf, out[caCert], now) && names(leaf.Leaf, at) {
		return out, newCA, nil
	}
	out[serverCert], out[serverKey], err = issue(now, serverLife, namespace, at, &signer)
	return out, true, err
}

// vouched tells whether a server's certificate is from an authority of a bundle.
func vouched(c *x509.Certificate, bundle []byte, now time.Time) bool {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	_, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now})
	return err == nil
}

// names tells whether a certificate is for all of these addresses.
func names(c *x509.Certificate, at []net.IP) bool {
	return !slices.ContainsFunc(at, func(ip net.IP) bool { return c.VerifyHostname(ip.String()) != nil })
}

// spent tells whether less than a third of a certificate's life is left.
func spent(c *x509.Certificate, now time.Time) bool {
	return now.Before(c.NotBefore) || now.After(c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore)/3))
}

// stillValid keeps the newest authority of a bundle that has not ended: servers may still show certificates from it.
func stillValid(bundle []byte, now time.Time) []byte {
	block, _ := pem.Decode(bundle)
	if block == nil {
		return nil
	}
	if c, err := x509.ParseCertificate(block.Bytes); err != nil || now.After(c.NotAfter) {
		return nil
	}
	return pem.EncodeToMemory(block)
}

// issue makes an authority, or a server's certificate from one.
func issue(now time.Time, life time.Duration, namespace string, at []net.IP, ca *tls.Certificate) (cert, key []byte, err error) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, fmt.Errorf("make a serial number: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: serial, NotBefore: now.Add(-5 * time.Minute), NotAfter: now.Add(life), // clocks differ a little
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	parent, signer := t, any(priv)
	if ca == nil {
		t.Subject = pkix.Name{CommonName: "seaway controller authority"}
		t.IsCA, t.KeyUsage = true, x509.KeyUsageCertSign
	} else {
		t.Subject = pkix.Name{CommonName: Service}
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		t.DNSNames = []string{Service, Service + "." + namespace, Service + "." + namespace + ".svc", Service + "." + namespace + ".svc.cluster.local"}
		t.IPAddresses = at
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &priv.PublicKey, signer)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, nil, fmt.Errorf("write a key: %w", err)
	}
	var buf bytes.Buffer
	_ = pem.Encode(&buf, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	return buf.Bytes(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}
