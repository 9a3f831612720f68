// Package pki makes the keys, certificates and kubeconfigs of one cluster.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"seaway.dev/seaway/lab/layout"
)

const validity = 10 * 365 * 24 * time.Hour

// authority is a certificate authority.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

type subject struct {
	file, cn, org string
	dns           []string
	ips           []netip.Addr
	kubeconfig    bool
}

// Write makes everything that a cluster needs in dir. The admin's kubeconfig
// is dir/admin.kubeconfig.
func Write(dir string, c layout.Cluster) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	w := writer{dir: dir}
	ca, front := w.authority("ca"), w.authority("front-proxy-ca")
	w.serviceAccountKey()
	if w.err != nil {
		return w.err
	}
	for _, s := range subjects(c) {
		w.issue(s, ca, c)
	}
	w.issue(subject{file: "front-proxy", cn: "front-proxy-client"}, front, c)
	return w.err
}

func subjects(c layout.Cluster) []subject {
	cp := c.ControlPlane()
	ss := []subject{
		{file: "apiserver", cn: "kube-apiserver",
			ips: []netip.Addr{cp.IP, cp.IPv6, netip.MustParseAddr("127.0.0.1"), c.APIServiceIP},
			dns: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost", cp.Name}},
		{file: "apiserver-kubelet", cn: "apiserver-kubelet-client", org: "system:masters"},
		{file: "admin", cn: "admin", org: "system:masters", kubeconfig: true},
		{file: "kcm", cn: "system:kube-controller-manager", kubeconfig: true},
		{file: "scheduler", cn: "system:kube-scheduler", kubeconfig: true},
		{file: "kube-proxy", cn: "system:kube-proxy", kubeconfig: true},
	}
	for _, n := range c.Nodes() {
		ss = append(ss, subject{file: n.Name, cn: "system:node:" + n.Name, org: "system:nodes",
			dns: []string{n.Name}, ips: []netip.Addr{n.IP, n.IPv6}, kubeconfig: true})
	}
	return ss
}

// writer keeps the first error, so that a list of files reads as a list.
type writer struct {
	dir string
	err error
}

func (w *writer) file(name string, b []byte) {
	if w.err == nil {
		w.err = os.WriteFile(filepath.Join(w.dir, name), b, 0o600)
	}
}

func (w *writer) authority(name string) authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.err = errors.Join(w.err, err)
		return authority{}
	}
	t := template(name, "")
	t.IsCA, t.BasicConstraintsValid = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		w.err = errors.Join(w.err, err)
		return authority{}
	}
	cert, err := x509.ParseCertificate(der)
	w.err = errors.Join(w.err, err)
	a := authority{cert: cert, key: key, pem: encode("CERTIFICATE", der)}
	w.file(name+".crt", a.pem)
	w.file(name+".key", w.keyPEM(key))
	return a
}

func (w *writer) issue(s subject, ca authority, c layout.Cluster) {
	if w.err != nil {
		return
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.err = err
		return
	}
	t := template(s.cn, s.org)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	t.DNSNames = s.dns
	for _, ip := range s.ips {
		t.IPAddresses = append(t.IPAddresses, net.IP(ip.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca.cert, key.Public(), ca.key)
	if err != nil {
		w.err = fmt.Errorf("certificate %s: %w", s.file, err)
		return
	}
	crt, keyPEM := encode("CERTIFICATE", der), w.keyPEM(key)
	w.file(s.file+".crt", crt)
	w.file(s.file+".key", keyPEM)
	if s.kubeconfig {
		w.file(s.file+".kubeconfig", Kubeconfig(c.Name, c.Server(), ca.pem, crt, keyPEM))
	}
}

func (w *writer) serviceAccountKey() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.err = errors.Join(w.err, err)
		return
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	w.err = errors.Join(w.err, err)
	w.file("sa.key", w.keyPEM(key))
	w.file("sa.pub", encode("PUBLIC KEY", pub))
}

func (w *writer) keyPEM(key *ecdsa.PrivateKey) []byte {
	der, err := x509.MarshalECPrivateKey(key)
	w.err = errors.Join(w.err, err)
	return encode("EC PRIVATE KEY", der)
}

func template(cn, org string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: cn},
		// An hour back: clocks of a suspended machine may be behind.
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity),
	}
	if org != "" {
		t.Subject.Organization = []string{org}
	}
	return t
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// Kubeconfig is the text of a kubeconfig with embedded credentials.
func Kubeconfig(name, server string, ca, crt, key []byte) []byte {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: %[1]s
  user:
    client-certificate-data: %[4]s
    client-key-data: %[5]s
contexts:
- name: %[1]s
  context: {cluster: %[1]s, user: %[1]s}
current-context: %[1]s
`, name, server, b64(ca), b64(crt), b64(key))
}

// Deal copies to a machine what that machine should have and no more: a node
// does not hold the cluster's keys.
func Deal(from, to string, m layout.Machine) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	pattern := []string{"*"}
	if m.Role == layout.Node {
		pattern = []string{"ca.crt", m.Name + ".*", "kube-proxy.*"}
	}
	for _, p := range pattern {
		files, err := filepath.Glob(filepath.Join(from, p))
		if err != nil {
			return err
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(to, filepath.Base(f)), b, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}
