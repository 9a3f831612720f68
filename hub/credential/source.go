package credential

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"seaway.dev/seaway/fleet"
)

// Store keeps a credential between runs. The replicas of a controller share one.
type Store interface {
	Load(context.Context) (Credential, error)
	Save(context.Context, Credential) error
}

// Mint asks the hub for a new token: of the member's access account or, if renewal is set, of its renewal account. It
// presents c's renewal token.
type Mint func(ctx context.Context, c Credential, renewal bool) (Token, error)

// Authority asks the hub which authorities its API server's certificate may be from, as PEM.
type Authority func(ctx context.Context, c Credential) ([]byte, error)

// Config is what a Source needs.
type Config struct {
	Store Store
	Mint  Mint // nil: [MintAt] the hub
	// Authority is asked with each new access token; nil: [AuthorityAt] the hub if Mint is nil, else nobody.
	Authority Authority
	Log       *slog.Logger
}

// Source holds a credential and keeps it fresh while [Source.Run] runs.
type Source struct {
	conf Config

	mu      sync.RWMutex
	cred    Credential
	problem *fleet.Problem
}

// The waits between attempts when the hub does not answer.
const (
	retryMin = 2 * time.Second
	retryMax = time.Minute
)

// Open loads the credential. It does not speak with the hub.
func Open(ctx context.Context, conf Config) (*Source, error) {
	if conf.Mint == nil {
		conf.Mint = MintAt
		if conf.Authority == nil {
			conf.Authority = AuthorityAt
		}
	}
	if conf.Log == nil {
		conf.Log = slog.New(slog.DiscardHandler)
	}
	c, err := conf.Store.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("load the hub credential: %w", err)
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Source{conf: conf, cred: c}, nil
}

// Cluster is the member's name.
func (s *Source) Cluster() string { return s.current().Cluster }

// Config is how to reach the hub. Each request carries the token that is the newest when it is sent, so clients made
// from it live as long as the source does.
func (s *Source) Config() *rest.Config {
	c := s.current()
	return &rest.Config{
		Host:            c.Server,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.CA},
		UserAgent:       "seaway/" + c.Cluster,
		WrapTransport: func(next http.RoundTripper) http.RoundTripper {
			return bearer{next: next, text: func() Bearer { return s.current().Access.Text }}
		},
	}
}

// Problem is why the credential could not be renewed, nil when all is well.
func (s *Source) Problem() *fleet.Problem {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.problem
}

// Run renews the credential in time until ctx ends. It returns nil then; failures are retried and shown by Problem.
func (s *Source) Run(ctx context.Context) error {
	wait := retryMin
	for {
		at, _ := s.current().due()
		pause := time.Until(at)
		if s.Problem() != nil {
			pause = max(pause, wait+rand.N(wait/4))
			wait = min(2*wait, retryMax)
		} else {
			wait = retryMin
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(pause, 0)):
		}
		err := s.renew(ctx)
		if ctx.Err() != nil {
			return nil
		}
		s.note(err)
	}
}

// renew takes what another replica has renewed meanwhile, and mints what is still due.
func (s *Source) renew(ctx context.Context) error {
	c := s.current()
	if stored, err := s.conf.Store.Load(ctx); err == nil && stored.Validate() == nil {
		if newer(stored, c) {
			c = stored
			s.set(c)
		}
	}
	at, renewal := c.due()
	if time.Now().Before(at) {
		return nil
	}
	t, err := s.conf.Mint(ctx, c, renewal)
	if err != nil {
		return err
	}
	if renewal {
		c.Renewal = t
	} else {
		c.Access = t
		s.trust(ctx, &c)
	}
	s.set(c)
	if err := s.conf.Store.Save(ctx, c); err != nil {
		return fmt.Errorf("store the renewed hub credential: %w", err)
	}
	s.conf.Log.Debug("hub credential renewed", "renewal", renewal, "expires", t.Expires())
	return nil
}

// trust takes over the authorities that the hub names now, if they are of the line that the member was given when it
// joined: while a Kubernetes cluster's authority is changed it names the old and the new one, and this is done long
// before the API server shows a certificate from the new one. A hub behind a server with a certificate of its own names
// others; that is no reason to trust them.
func (s *Source) trust(ctx context.Context, c *Credential) {
	if s.conf.Authority == nil || len(c.CA) == 0 {
		return
	}
	bundle, err := s.conf.Authority(ctx, *c)
	if err != nil {
		s.conf.Log.Debug("the hub does not say who its authorities are", "err", err)
		return
	}
	if !bytes.Equal(bundle, c.CA) && related(c.CA, bundle) {
		s.conf.Log.Info("the hub has other authorities")
		c.CA = bundle
	}
}

// related tells whether two bundles have a certificate in common.
func related(a, b []byte) bool {
	known := map[string]bool{}
	for _, c := range certificates(a) {
		known[string(c)] = true
	}
	return slices.ContainsFunc(certificates(b), func(c []byte) bool { return known[string(c)] })
}

// certificates lists those of a bundle, as DER.
func certificates(bundle []byte) (out [][]byte) {
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			return out
		}
		if _, err := x509.ParseCertificate(block.Bytes); err == nil {
			out = append(out, block.Bytes)
		}
	}
}

// newer tells whether a stored credential is to replace the one in hand. A join with a new token counts as newer, too.
func newer(stored, have Credential) bool {
	return stored.Renewal.Issued.After(have.Renewal.Issued) || stored.Access.Issued.After(have.Access.Issued)
}

func (s *Source) current() Credential {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.cred
}

func (s *Source) set(c Credential) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cred = c
}

// note turns the outcome of an attempt into a problem, or into none.
func (s *Source) note(err error) {
	var p *fleet.Problem
	c := s.current()
	if err != nil {
		p = &fleet.Problem{Where: "cluster " + c.Cluster, Since: time.Now(), Reason: "HubUnreachable",
			Message: fmt.Sprintf("the hub credential could not be renewed: %v", err),
			Next:    fmt.Sprintf("check that this cluster can reach %s; traffic goes on meanwhile", c.Server)}
		again := fmt.Sprintf("on the hub run `seaway token create %s --rejoin`, then here `seaway join --token …`", c.Cluster)
		switch {
		case refused(err):
			p.Reason, p.Next = "CredentialRevoked", "if this cluster is to stay in the fleet: "+again
		case time.Now().After(c.Renewal.Expires()):
			p.Reason, p.Next = "CredentialExpired", again
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p != nil && s.problem != nil && s.problem.Reason == p.Reason {
		p.Since = s.problem.Since
	} else if p != nil {
		s.conf.Log.Warn("hub credential not renewed", "reason", p.Reason, "err", err)
	} else if s.problem != nil {
		s.conf.Log.Info("hub credential renewed again")
	}
	s.problem = p
}

// refused tells whether the hub answered and said no, as opposed to not answering.
func refused(err error) bool {
	return apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || errors.Is(err, errRefused)
}

var errRefused = errors.New("refused")

// bearer sets the Authorization header of each request anew.
type bearer struct {
	next http.RoundTripper
	text func() Bearer
}

// RoundTrip implements http.RoundTripper.
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(b.text()))
	return b.next.RoundTrip(r)
}
