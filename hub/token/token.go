// Package token reads and writes join tokens: the one text that an administrator carries from the hub to a cluster.
//
//	seaway1.<base64url of JSON {server, id, cluster, expires}>.<base64url of the CA's certificates>.<account token>
//
// The certificates stand as they are (DER) and the account token, which is base64 already, as it is, so that the text
// stays at about 2,000 bytes. Kubeadm's tokens are shorter because they hold a hash of the authority's key; whoever
// joins there fetches the authority itself without proof of identity, from an object that many clusters do not publish.
//
// The token names the hub and its certificate authority, so whoever joins talks to that hub and no other; what it
// allows is decided by the hub alone, by the ServiceAccount token inside, which may touch a single ConfigMap and ends
// with the join.
package token

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"seaway.dev/seaway/hub/place"
)

const (
	mark = "seaway1."
	max  = 64 << 10 // bytes of text; a real one has about 2,000
)

// Token is what a join token says.
type Token struct {
	Server  string    `json:"server"`  // URL of the hub's API server, as the member reaches it
	CA      []byte    `json:"-"`       // PEM; empty: the member's own trusted authorities
	ID      string    `json:"id"`      // of the ConfigMap and ServiceAccount in seaway-joins
	Cluster string    `json:"cluster"` // the name that the cluster joins under
	Bearer  string    `json:"-"`       // of that ServiceAccount
	Expires time.Time `json:"expires"`
}

// ErrMalformed says that a text is no join token. It is wrapped by an error that says why.
var ErrMalformed = errors.New("not a join token of Seaway")

var id = regexp.MustCompile(`^[a-z0-9]{6,32}$`)

// String returns the token's text. It is a secret until it is used.
func (t Token) String() string {
	b, err := json.Marshal(t)
	if err != nil {
		panic(err) // strings, bytes and a time always have a JSON form, but for a year above 9999
	}
	e := base64.RawURLEncoding
	return mark + e.EncodeToString(b) + "." + e.EncodeToString(der(t.CA)) + "." + t.Bearer
}

// der is the certificates of a PEM text, one after the other. What is no PEM stays as it is, for Parse to refuse.
func der(text []byte) []byte {
	var out []byte
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == pemCertificate {
			out = append(out, block.Bytes...)
		}
	}
	if out == nil {
		return text
	}
	return out
}

const pemCertificate = "CERTIFICATE"

// pemOf is the text that der was made of.
func pemOf(der []byte) ([]byte, error) {
	certs, err := x509.ParseCertificates(der)
	if err != nil {
		return nil, errors.New("its certificate authority is not a certificate")
	}
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.Raw})...)
	}
	return out, nil
}

// Parse reads a token's text. It checks all that can be checked without the hub, but not the time: see [Token.Check].
func Parse(text string) (Token, error) {
	t, err := parse(strings.TrimSpace(text))
	if err != nil {
		return Token{}, fmt.Errorf("%w: %w; copy the whole line that `seaway token create` printed", ErrMalformed, err)
	}
	return t, nil
}

func parse(text string) (Token, error) {
	var t Token
	switch {
	case text == "":
		return t, errors.New("it is empty")
	case len(text) > max:
		return t, fmt.Errorf("it has %d bytes, more than any token", len(text))
	case !strings.HasPrefix(text, mark):
		return t, fmt.Errorf("it does not begin with %q", mark)
	}
	parts := strings.SplitN(text[len(mark):], ".", 3)
	if len(parts) < 3 {
		return t, errors.New("it is cut off")
	}
	var raw [2][]byte
	for i := range raw {
		var err error
		if raw[i], err = base64.RawURLEncoding.Strict().DecodeString(parts[i]); err != nil {
			return t, errors.New("it is cut off or has a character that does not belong (base64)")
		}
	}
	d := json.NewDecoder(bytes.NewReader(raw[0]))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil || d.More() {
		return t, errors.New("it is cut off or was changed (JSON)")
	}
	t.Bearer = parts[2]
	if len(raw[1]) > 0 {
		var err error
		if t.CA, err = pemOf(raw[1]); err != nil {
			return t, err
		}
	}
	return t, t.valid()
}

func (t Token) valid() error {
	u, err := url.Parse(t.Server)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("its server %.100q is not an https URL", t.Server)
	}
	if !id.MatchString(t.ID) {
		return fmt.Errorf("its id %.40q is malformed", t.ID)
	}
	if err := place.CheckCluster(t.Cluster); err != nil {
		return err
	}
	if t.Bearer == "" || strings.ContainsFunc(t.Bearer, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("its secret part is malformed")
	}
	if y := t.Expires.Year(); y < 2000 || y > 9000 {
		return errors.New("its time of expiry is malformed")
	}
	return nil
}

// Check tells whether the token can still be used at a time.
func (t Token) Check(now time.Time) error {
	if now.After(t.Expires) {
		return fmt.Errorf("join token for %s expired at %s (%s ago): make a new one on the hub with `seaway token create %s`",
			t.Cluster, t.Expires.Local().Format(time.DateTime), now.Sub(t.Expires).Round(time.Second), t.Cluster)
	}
	return nil
}
