// Package credential is a member's right to speak with the hub: an access token that lasts an hour, and a renewal
// token that lasts a month and can do nothing but mint the two again.
//
//	access   ──▶ reads the fleet, writes the member's own mailbox      renewed at half its life
//	renewal  ──▶ mints access and renewal                              renewed daily
//
// A stolen access token is worth an hour. A member that was away for less than a month comes back by itself; after
// that it needs a new join token. Both end at once when the hub deletes the member's accounts.
package credential

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Lives that the hub asks for. An API server may be set to grant less; what counts is [Token.Life].
const (
	AccessLife  = time.Hour
	RenewalLife = 30 * 24 * time.Hour
)

// Bearer is a token's text. It shows itself as stars wherever it is printed or logged.
type Bearer string

// String hides the text.
func (b Bearer) String() string { return "***" }

// GoString hides the text.
func (b Bearer) GoString() string { return "***" }

// LogValue hides the text.
func (b Bearer) LogValue() slog.Value { return slog.StringValue("***") }

// Token is a bearer token with its times. They are told as the moment of receipt by the local clock and a duration,
// so that a clock that differs from the hub's does no harm.
type Token struct {
	Text   Bearer        `json:"text"`
	Issued time.Time     `json:"issued"`
	Life   time.Duration `json:"life"` // nanoseconds
}

// Expires is when the token ends.
func (t Token) Expires() time.Time { return t.Issued.Add(t.Life) }

// half is when half of the token's life has passed.
func (t Token) half() time.Time { return t.Issued.Add(t.Life / 2) }

// Credential is everything that a member needs to speak with its hub.
type Credential struct {
	Cluster string `json:"cluster"`      // the member's name
	Server  string `json:"server"`       // the hub's API server
	CA      []byte `json:"ca,omitempty"` // PEM; empty: the trusted authorities of the system
	Access  Token  `json:"access"`
	Renewal Token  `json:"renewal"`
}

// Validate tells what is missing.
func (c Credential) Validate() error {
	var errs []error
	for _, f := range []struct{ name, value string }{
		{"cluster", c.Cluster}, {"server", c.Server}, {"access", string(c.Access.Text)}, {"renewal", string(c.Renewal.Text)},
	} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("hub credential has no %s: join again with a new token", f.name))
		}
	}
	return errors.Join(errs...)
}

// due is when something of the credential is to be renewed next, and whether that is the renewal token.
func (c Credential) due() (time.Time, bool) {
	daily := c.Renewal.Issued.Add(min(24*time.Hour, c.Renewal.Life/2))
	if daily.Before(c.Access.half()) {
		return daily, true
	}
	return c.Access.half(), false
}
