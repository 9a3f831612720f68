package credential

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// memory is a Store that the replicas of a test share.
type memory struct {
	mu    sync.Mutex
	cred  Credential
	saves int
	fail  error
}

func (m *memory) Load(context.Context) (Credential, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cred, nil
}

func (m *memory) Save(_ context.Context, c Credential) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.cred, m.saves = c, m.saves+1
	return nil
}

// mint is a hub: it gives out tokens while it is up and the renewal token it is shown has not expired.
type mint struct {
	mu    sync.Mutex
	down  error
	calls []bool
	start time.Time
}

func (m *mint) token(_ context.Context, c Credential, renewal bool) (Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return Token{}, m.down
	}
	if time.Now().After(c.Renewal.Expires()) {
		return Token{}, fmt.Errorf("expired: %w", errRefused)
	}
	m.calls = append(m.calls, renewal)
	life := AccessLife
	if renewal {
		life = RenewalLife
	}
	return Token{Text: Bearer(fmt.Sprintf("%v-%s", renewal, time.Since(m.start))), Issued: time.Now(), Life: life}, nil
}

func (m *mint) set(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = err
}

func (m *mint) count(renewal bool) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.calls {
		if c == renewal {
			n++
		}
	}
	return n
}

func start(t *testing.T, replicas int) (*memory, *mint, []*Source) {
	t.Helper()
	now := time.Now()
	store := &memory{cred: Credential{Cluster: "c1", Server: "https://hub",
		Access:  Token{Text: "a", Issued: now, Life: AccessLife},
		Renewal: Token{Text: "r", Issued: now, Life: RenewalLife}}}
	m := &mint{start: now}
	var sources []*Source
	for range replicas {
		s, err := Open(t.Context(), Config{Store: store, Mint: m.token})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if err := s.Run(t.Context()); err != nil {
				t.Errorf("run: %v", err)
			}
		}()
		sources = append(sources, s)
	}
	return store, m, sources
}

func TestRenewsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, m, s := start(t, 1)
		for range 24 * 4 {
			time.Sleep(15 * time.Minute)
			synctest.Wait()
			if c := s[0].current(); !time.Now().Before(c.Access.Expires()) {
				t.Fatalf("after %s the access token is expired", time.Since(m.start))
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if a, r := m.count(false), m.count(true); a != 48 || r != 1 {
			t.Errorf("in a day: %d access and %d renewal tokens, want 48 and 1", a, r)
		}
	})
}

func TestHubAwayForDaysThenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, m, s := start(t, 1)
		m.set(errors.New("connection refused"))
		time.Sleep(20 * 24 * time.Hour)
		synctest.Wait()
		p := s[0].Problem()
		if p == nil || p.Reason != "HubUnreachable" || p.Next == "" {
			t.Fatalf("problem while away: %+v", p)
		}
		if d := time.Since(p.Since); d < 19*24*time.Hour {
			t.Errorf("the problem's age is %s", d)
		}
		m.set(nil)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if p := s[0].Problem(); p != nil {
			t.Errorf("problem after the hub is back: %+v", p)
		}
		if c := store.cred; !time.Now().Before(c.Access.Expires()) || time.Since(c.Renewal.Issued) > time.Hour {
			t.Errorf("not renewed: %+v", c)
		}
	})
}

func TestAwayForTooLongNeedsANewToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, m, s := start(t, 1)
		m.set(errors.New("connection refused"))
		time.Sleep(31 * 24 * time.Hour)
		synctest.Wait()
		if p := s[0].Problem(); p == nil || p.Reason != "CredentialExpired" || !strings.Contains(p.Next, "seaway token create c1") {
			t.Errorf("while away: %+v", p)
		}
		m.set(nil)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if p := s[0].Problem(); p == nil || p.Reason != "CredentialRevoked" {
			t.Errorf("after: %+v", p)
		}
		// A join with a new token stores a new credential: the source takes it up without a restart.
		store.mu.Lock()
		store.cred.Access = Token{Text: "new", Issued: time.Now(), Life: AccessLife}
		store.cred.Renewal = Token{Text: "new", Issued: time.Now(), Life: RenewalLife}
		store.mu.Unlock()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if s[0].Problem() != nil || s[0].current().Access.Text != "new" {
			t.Errorf("new credential not taken: %+v", s[0].Problem())
		}
	})
}

func TestReplicasShareOneCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, m, s := start(t, 2)
		// One is a little ahead, as in life.
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		if n := m.count(false); n > 2*96 {
			t.Errorf("%d access tokens in two days", n)
		}
		for i, one := range s {
			if !time.Now().Before(one.current().Access.Expires()) {
				t.Errorf("replica %d has an expired token", i)
			}
		}
		if store.saves == 0 {
			t.Error("nothing stored")
		}
	})
}

func TestEachRequestCarriesTheNewestToken(t *testing.T) {
	store := &memory{cred: Credential{Cluster: "c1", Server: "https://hub", Access: Token{Text: "one"}, Renewal: Token{Text: "r"}}}
	s, err := Open(t.Context(), Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	rt := s.Config().WrapTransport(trip(func(r *http.Request) { got = append(got, r.Header.Get("Authorization")) }))
	for _, text := range []Bearer{"one", "two"} {
		c := s.current()
		c.Access.Text = text
		s.set(c)
		r, _ := http.NewRequest(http.MethodGet, "https://hub/", nil)
		if _, err := rt.RoundTrip(r); err != nil {
			t.Fatal(err)
		}
		if r.Header.Get("Authorization") != "" {
			t.Error("the caller's request was changed")
		}
	}
	if strings.Join(got, ",") != "Bearer one,Bearer two" {
		t.Errorf("got %v", got)
	}
}

type trip func(*http.Request)

func (f trip) RoundTrip(r *http.Request) (*http.Response, error) { f(r); return nil, nil }

func TestSecretsAreNotPrinted(t *testing.T) {
	c := Credential{Cluster: "c1", Access: Token{Text: "topsecret"}, Renewal: Token{Text: "topsecret"}}
	if s := fmt.Sprintf("%v %+v %#v %s", c, c, c, c.Access.Text); strings.Contains(s, "topsecret") {
		t.Error(s)
	}
	c.Server = "https://hub"
	o, err := c.Secret()
	if err != nil {
		t.Fatal(err)
	}
	back, err := FromSecret(o)
	if err != nil || back.Access.Text != "topsecret" {
		t.Errorf("round trip: %v %v", back, err)
	}
}
