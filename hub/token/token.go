// Package token reads and writes join tokens: the one text that an administrator carries from the hub to a cluster.
//
//	seaway1.<base64url of JSON {server, ca, id, cluster, token, expires}>
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
	max  = 64 << 10 // bytes of text; a real one has about 3,000
)

// Token is what a join token says.
type Token struct {
	Server  string    `json:"server"`       // URL of the hub's API server, as the member reaches it
	CA      []byte    `json:"ca,omitempty"` // PEM; empty: the member's own trusted authorities
	ID      string    `json:"id"`           // of the ConfigMap and ServiceAccount in seaway-joins
	Cluster string    `json:"cluster"`      // the name that the cluster joins under
	Bearer  string    `json:"token"`        // of that ServiceAccount
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
	return mark + base64.RawURLEncoding.EncodeToString(b)
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
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text[len(mark):])
	if err != nil {
		return t, errors.New("it is cut off or has a character that does not belong (base64)")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil || d.More() {
		return t, errors.New("it is cut off or was changed (JSON)")
	}
	return t, t.valid()
}

func (t Token) valid() error {
	u, err := url.Parse(t.Server)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("its server %.100q is not an https URL", t.Server)
	}
	if len(t.CA) > 0 {
		block, _ := pem.Decode(t.CA)
		if block == nil {
			return errors.New("its certificate authority is not PEM")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return errors.New("its certificate authority is not a certificate")
		}
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
