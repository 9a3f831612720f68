package join

import (
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/nacl/box"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/hub/credential"
)

func TestSealAndOpen(t *testing.T) {
	pub, priv, err := box.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	g := Grant{Cluster: "paris", Access: credential.Token{Text: "secret", Life: time.Hour}}
	text, err := Seal(g, fleet.Key(*pub))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	got, err := open(text, pub, priv, now)
	if err != nil || got.Access.Text != "secret" || !got.Access.Issued.Equal(now) {
		t.Errorf("got %+v, %v", got, err)
	}
	pub2, priv2, _ := box.GenerateKey(rand.Reader)
	if _, err := open(text, pub2, priv2, now); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("with another key: %v", err)
	}
	if _, err := open(text[:len(text)-8], pub, priv, now); err == nil {
		t.Error("a cut answer was opened")
	}
}

func FuzzParseClaim(f *testing.F) {
	b, _ := json.Marshal(Claim{Version: fleet.WireVersion, Key: fleet.Key{1}, UID: "0e0c8bd4-7b6e", Wish: Wish{Gateways: 2}})
	f.Add(string(b))
	f.Add(`{"version":1,"key":"AQ==","uid":"x"}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseClaim(text)
		if err == nil && (c.Key.IsZero() || len(c.UID) > 64 || c.Gateways > 16) {
			t.Errorf("%q was taken as %+v", text, c)
		}
	})
}
