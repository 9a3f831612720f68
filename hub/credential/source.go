package credential

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
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

// Config is what a Source needs.
type Config struct {
	Store Store
	Mint  Mint // nil: [MintAt] the hub
	Log   *slog.Logger
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
	}
	s.set(c)
	if err := s.conf.Store.Save(ctx, c); err != nil {
		return fmt.Errorf("store the renewed hub credential: %w", err)
	}
	s.conf.Log.Debug("hub credential renewed", "renewal", renewal, "expires", t.Expires())
	return nil
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
