package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"seaway.dev/seaway/lab/config"
	"seaway.dev/seaway/lab/layout"
)

func cluster(t *testing.T) layout.Cluster {
	t.Helper()
	c := config.Default(1, 2)
	if err := c.Complete(); err != nil {
		t.Fatal(err)
	}
	l, err := layout.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return l.Clusters[1]
}

func TestCertificates(t *testing.T) {
	dir, c := t.TempDir(), cluster(t)
	if err := Write(dir, c); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatal(err)
	}
	for _, want := range []struct{ file, name, org, host string }{
		{"apiserver", "kube-apiserver", "", "172.30.1.10"}, {"apiserver", "kube-apiserver", "", "10.96.0.1"},
		{"apiserver", "kube-apiserver", "", "kubernetes.default.svc"}, {"admin", "admin", "system:masters", ""},
		{"c1n2", "system:node:c1n2", "system:nodes", "172.30.1.12"}, {"c1n2", "system:node:c1n2", "system:nodes", "fd30:1::12"},
		{"kube-proxy", "system:kube-proxy", "", ""},
	} {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, want.file+".crt"), filepath.Join(dir, want.file+".key"))
		if err != nil {
			t.Fatal(err)
		}
		usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: want.host, KeyUsages: usages}); err != nil {
			t.Errorf("%s for %q: %v", want.file, want.host, err)
		}
		s := pair.Leaf.Subject
		if s.CommonName != want.name || len(s.Organization) > 0 && s.Organization[0] != want.org {
			t.Errorf("%s is of %s", want.file, s)
		}
	}
}

func TestServiceAccountKeysBelongTogether(t *testing.T) {
	dir := t.TempDir()
	if err := Write(dir, cluster(t)); err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		p, _ := pem.Decode(b)
		return p.Bytes
	}
	key, err := x509.ParseECPrivateKey(read("sa.key"))
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.ParsePKIXPublicKey(read("sa.pub"))
	if err != nil || !key.PublicKey.Equal(pub) {
		t.Error(err, "the two are of different keys")
	}
}

func TestANodeGetsOnlyItsOwn(t *testing.T) {
	dir, to, c := t.TempDir(), t.TempDir(), cluster(t)
	if err := Write(dir, c); err != nil {
		t.Fatal(err)
	}
	if err := Deal(dir, to, c.Nodes()[0]); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"ca.crt": true, "c1n1.key": true, "kube-proxy.kubeconfig": true, "ca.key": false, "admin.key": false, "c1n2.key": false, "sa.key": false} {
		if _, err := os.Stat(filepath.Join(to, name)); (err == nil) != want {
			t.Errorf("%s: present is %v", name, err == nil)
		}
	}
}
