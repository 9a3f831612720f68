package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// openVPN returns a maker of a point-to-point OpenVPN tunnel over UDP with one cipher and otherwise its defaults: TLS
// with certificates known by their fingerprints, tun, in userspace.
func openVPN(cipher string) func(*workshop) way {
	return func(w *workshop) way {
		if _, err := exec.LookPath("openvpn"); err != nil {
			w.Fatalf("openvpn is not installed: apt-get install openvpn")
		}
		a, b := w.ns("ovpn"), w.ns("ovpn")
		x, y := underlay(a, b, "eth0", "10.66.6")
		certA, keyA, printA := w.certificate("a")
		certB, keyB, printB := w.certificate("b")
		common := []string{"--dev", "tun0", "--proto", "udp", "--port", "1194", "--data-ciphers", cipher,
			"--data-ciphers-fallback", cipher, "--auth", "SHA256", "--verb", "1", "--tls-cert-profile", "suiteb", "--nobind"}
		common = common[:len(common)-3] // certificates here are short-lived, not of suite B; both ends bind
		v := way{from: a, to: b, source: podA, addr: podB}
		v.procs = append(v.procs,
			w.start(a, "openvpn", append(common, "--tls-server", "--dh", "none", "--remote", y.String(), "--ifconfig", podA.String(), podB.String(),
				"--cert", certA, "--key", keyA, "--peer-fingerprint", printB)...),
			w.start(b, "openvpn", append(common, "--tls-client", "--remote", x.String(), "--ifconfig", podB.String(), podA.String(),
				"--cert", certB, "--key", keyB, "--peer-fingerprint", printA)...))
		w.waitLink(a, "tun0")
		w.waitLink(b, "tun0")
		return v
	}
}

// certificate makes a self-signed one for an hour and returns its file, its key's file and its fingerprint.
func (w *workshop) certificate(name string) (cert, key, print string) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	w.must(err)
	kder, err := x509.MarshalPKCS8PrivateKey(k)
	w.must(err)
	dir, err := os.MkdirTemp(w.dir, "cert")
	w.must(err)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	w.must(os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	w.must(os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kder}), 0o600))
	sum := sha256.Sum256(der)
	var parts []string
	for _, c := range sum {
		parts = append(parts, fmt.Sprintf("%02X", c))
	}
	return cert, key, strings.Join(parts, ":")
}
