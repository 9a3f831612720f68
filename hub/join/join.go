// Package join is how a cluster comes into the fleet with a join token, both ends of it.
//
//	member                                    hub
//	  makes a NaCl box key pair
//	  claim: key, cluster UID ──ConfigMap──▶  the first claim counts; refuses a taken name
//	                                          makes account, mailbox, rights, Cluster
//	  opens it              ◀──ConfigMap────  answer: the credential, sealed to that key
//	  says so               ──ConfigMap──▶    removes the token's account and ConfigMap
//
// The credential can be read by the first claimant alone, even by nobody who holds the same token or can read the
// ConfigMap. A token works once, also when two use it at the same time: the API server lets one of two updates of the
// ConfigMap through, and the hub remembers the first key on an object that the token's bearer cannot touch. A refusal
// does not use the token up: the next claim is written over the refused one.
package join

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/nacl/box"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/hub/credential"
)

// Keys of the ConfigMap's data.
const (
	keyClaim   = "claim"   // by the member: JSON of a Claim
	keyAnswer  = "answer"  // by the hub: base64 of a sealed Grant
	keyRefusal = "refusal" // by the hub instead: JSON of a Refusal
	keyFetched = "fetched" // by the member, when it has opened the answer
)

// maxClaim bounds what the hub reads of a claim, in bytes.
const maxClaim = 8 << 10

// Wish is what a cluster says of itself when it joins. What the token's maker said counts more.
type Wish struct {
	Private  bool              `json:"private,omitempty"`
	Region   string            `json:"region,omitempty"`
	Provider string            `json:"provider,omitempty"`
	Gateways int32             `json:"gateways,omitempty"`
	Selector map[string]string `json:"gatewaySelector,omitempty"`
}

// Claim is what a member writes to redeem a token.
type Claim struct {
	Version int       `json:"version"`
	Key     fleet.Key `json:"key"` // to seal the answer to
	UID     string    `json:"uid"` // of its kube-system namespace: what makes it this cluster and no other
	Wish
}

// Grant is what the hub gives, sealed. The token's times are durations here: see [credential.Token].
type Grant struct {
	Cluster string           `json:"cluster"`
	Access  credential.Token `json:"access"`
	Renewal credential.Token `json:"renewal"`
}

// Refusal is the hub's no, with what to do.
type Refusal struct {
	Reason  string `json:"reason"` // as in docs/problems
	Message string `json:"message"`
	Next    string `json:"next"`
}

// Error implements error.
func (r *Refusal) Error() string { return r.Message + ": " + r.Next }

// ParseClaim reads a claim as the hub finds it: outside input.
func ParseClaim(text string) (Claim, error) {
	var c Claim
	if len(text) > maxClaim {
		return c, fmt.Errorf("claim has %d bytes, more than %d", len(text), maxClaim)
	}
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return c, fmt.Errorf("claim: %w", err)
	}
	switch {
	case c.Version != fleet.WireVersion:
		return c, fmt.Errorf("claim has version %d, this hub speaks %d: use the same version of seaway on both", c.Version, fleet.WireVersion)
	case c.Key.IsZero():
		return c, errors.New("claim has no key")
	case len(c.UID) < 8 || len(c.UID) > 64:
		return c, fmt.Errorf("claim has a malformed cluster UID %.70q", c.UID)
	case len(c.Region) > 63 || len(c.Provider) > 63 || c.Gateways < 0 || c.Gateways > 16 || len(c.Selector) > 16:
		return c, errors.New("claim has an option that is out of bounds (region and provider ≤ 63 characters, gateways ≤ 16)")
	}
	return c, nil
}

// Seal encrypts a grant to the claimant's key.
func Seal(g Grant, to fleet.Key) (string, error) {
	b, err := json.Marshal(g)
	if err != nil {
		return "", fmt.Errorf("grant: %w", err)
	}
	key := [32]byte(to)
	sealed, err := box.SealAnonymous(nil, b, &key, rand.Reader)
	if err != nil {
		return "", fmt.Errorf("seal the grant: %w", err)
	}
	return base64.StdEncoding.EncodeToString(sealed), nil
}

// open decrypts what Seal made.
func open(text string, public, private *[32]byte, now time.Time) (Grant, error) {
	var g Grant
	sealed, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return g, fmt.Errorf("the hub's answer is damaged: %w", err)
	}
	b, ok := box.OpenAnonymous(nil, sealed, public, private)
	if !ok {
		return g, errors.New("the hub's answer is sealed to another key")
	}
	if err := json.Unmarshal(b, &g); err != nil {
		return g, fmt.Errorf("the hub's answer is damaged: %w", err)
	}
	g.Access.Issued, g.Renewal.Issued = now, now
	return g, nil
}
