package credential

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"
	"testing/synctest"
	"time"
)

// authority makes a certificate authority as PEM.
func authority(t *testing.T, serial int64) []byte {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestTheHubsAuthorityChanges: the hub's cluster goes from one certificate authority to another, naming both for a day,
// as Kubernetes does it. A member that was away for half of that time follows, without a join. One that is named
// strangers only stays with what it has.
func TestTheHubsAuthorityChanges(t *testing.T) {
	first, second, stranger := authority(t, 1), authority(t, 2), authority(t, 3)
	both := append(bytes.Clone(first), second...)
	synctest.Test(t, func(t *testing.T) {
		store, m, _ := start(t, 0)
		store.cred.CA = first
		named, shown := first, first
		trusted := func(c Credential) bool { return bytes.Contains(c.CA, shown) }
		s, err := Open(t.Context(), Config{Store: store,
			Mint: func(ctx context.Context, c Credential, renewal bool) (Token, error) {
				if !trusted(c) {
					return Token{}, errors.New("x509: certificate signed by unknown authority")
				}
				return m.token(ctx, c, renewal)
			},
			Authority: func(_ context.Context, c Credential) ([]byte, error) {
				if !trusted(c) {
					return nil, errors.New("x509: certificate signed by unknown authority")
				}
				return named, nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = s.Run(t.Context()) }()
		for _, step := range []struct {
			what         string
			named, shown []byte
			away         bool
			last         time.Duration
			want         []byte
		}{
			{"as at first", first, first, false, 2 * time.Hour, first},
			{"both are named, and it is away", both, first, true, 12 * time.Hour, first},
			{"it is back", both, first, false, 2 * time.Hour, both},
			{"the new one is shown", both, second, false, 2 * time.Hour, both},
			{"the old one is over", second, second, false, 2 * time.Hour, second},
			{"strangers are named", stranger, second, false, 2 * time.Hour, second},
			{"nobody is named", nil, second, false, 2 * time.Hour, second},
		} {
			named, shown = step.named, step.shown
			m.set(nil)
			if step.away {
				m.set(errors.New("connection refused"))
			}
			time.Sleep(step.last)
			synctest.Wait()
			if !bytes.Equal(s.current().CA, step.want) || !bytes.Equal(store.cred.CA, step.want) && !bytes.Equal(step.want, first) {
				t.Errorf("%s: it trusts other authorities than it is to", step.what)
			}
			if p := s.Problem(); (p != nil) != step.away {
				t.Errorf("%s: problem %+v", step.what, p)
			}
		}
	})
}

// TestAnExpiredAccessTokenIsReplaced: a controller that stood still, or a hub that was away, until long after the access token
// had ended, has a new one within seconds.
func TestAnExpiredAccessTokenIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, m, _ := start(t, 0)
		time.Sleep(10 * AccessLife) // nobody runs
		if time.Now().Before(store.cred.Access.Expires()) {
			t.Fatal("it has not ended: the test cannot fail")
		}
		s, err := Open(t.Context(), Config{Store: store, Mint: m.token})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = s.Run(t.Context()) }()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if c := s.current(); !time.Now().Before(c.Access.Expires()) || s.Problem() != nil {
			t.Errorf("still %+v, problem %+v", c.Access, s.Problem())
		}
	})
}
