package token

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"
)

const ca = `-----BEGIN CERTIFICATE-----
MIIBdTCCARugAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDEwlzZWF3YXkt
Y2EwHhcNMjYwMTAxMDAwMDAwWhcNMzYwMTAxMDAwMDAwWjAUMRIwEAYDVQQDEwlz
-----END CERTIFICATE-----
`

func sample() Token {
	return Token{Server: "https://hub.example:6443", ID: "k3v9x2m4q7", Cluster: "paris",
		Bearer: "eyJhbGciOi.eyJ.sig", Expires: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
}

func TestRoundTrip(t *testing.T) {
	in := sample()
	got, err := Parse("\n " + in.String() + "\n")
	if err != nil || !reflect.DeepEqual(got, in) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestAuthority: the authority survives, be it several certificates, and the text stays short enough to be pasted.
func TestAuthority(t *testing.T) {
	in := sample()
	in.Bearer = strings.Repeat("x", 900)
	in.CA = append(authority(t), authority(t)...)
	got, err := Parse(in.String())
	if err != nil || !reflect.DeepEqual(got, in) {
		t.Errorf("got %+v, %v", got, err)
	}
	in.CA = authority(t)
	if n := len(in.String()); n > 2400 {
		t.Errorf("a token has %d bytes", n)
	}
}

// authority makes one as kubeadm does, with an RSA key of 2048 bits.
func authority(t *testing.T) []byte {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	b, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b})
}

func TestParseRefuses(t *testing.T) {
	with := func(change func(*Token)) string {
		s := sample()
		change(&s)
		return s.String()
	}
	whole := sample().String()
	for name, c := range map[string]struct{ text, says string }{
		"empty":                {"", "empty"},
		"something else":       {"eyJhbGciOiJSUzI1NiIs", "does not begin with"},
		"another version":      {"seaway2." + whole[8:], "does not begin with"},
		"cut off":              {whole[:len(whole)-30], "cut off"},
		"cut in the JSON":      {whole[:60], "cut off"},
		"cut to the mark":      {"seaway1.", "cut off"},
		"a blank inside":       {whole[:40] + " " + whole[40:], "cut off or has a character"},
		"too long":             {whole + strings.Repeat("A", 70<<10), "more than any token"},
		"http":                 {with(func(t *Token) { t.Server = "http://hub" }), "https URL"},
		"a password in it":     {with(func(t *Token) { t.Server = "https://a:b@hub" }), "https URL"},
		"no certificate":       {with(func(t *Token) { t.CA = []byte("zzz") }), "not a certificate"},
		"a broken certificate": {with(func(t *Token) { t.CA = []byte(ca) }), "not a certificate"},
		"an id with a path":    {with(func(t *Token) { t.ID = "../../secrets" }), "id"},
		"a reserved name":      {with(func(t *Token) { t.Cluster = "system" }), "Seaway's own"},
		"no secret":            {with(func(t *Token) { t.Bearer = "" }), "secret part"},
		"a header in it":       {with(func(t *Token) { t.Bearer = "a\r\nX-Evil: 1" }), "secret part"},
		"no expiry":            {with(func(t *Token) { t.Expires = time.Time{} }), "expiry"},
	} {
		_, err := Parse(c.text)
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "seaway token create") {
			t.Errorf("%s: got %v, want it to say %q and what to do", name, err, c.says)
		}
	}
}

func TestCheck(t *testing.T) {
	in := sample()
	if err := in.Check(in.Expires.Add(-time.Second)); err != nil {
		t.Errorf("a second before: %v", err)
	}
	if err := in.Check(in.Expires.Add(90 * time.Second)); err == nil || !strings.Contains(err.Error(), "1m30s ago") ||
		!strings.Contains(err.Error(), "seaway token create paris") {
		t.Errorf("after: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample().String())
	f.Add("seaway1.e30..x")
	f.Add("seaway1.")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(tok.String())
		if err != nil || !reflect.DeepEqual(again.String(), tok.String()) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
