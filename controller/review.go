package controller

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// What the API server says in a token's review about the pod that a bound token was made for
// (KEP-4193, in service account tokens since Kubernetes 1.32).
const (
	extraNode = "authentication.kubernetes.io/node-name"
	extraPod  = "authentication.kubernetes.io/pod-name"
)

// reviewLife is how long an answer of the API server counts. A deleted pod's token is refused after at most this.
const reviewLife = time.Minute

// reviewer finds out which node a bearer of a token may speak for, by asking the API server.
type reviewer struct {
	client    client.Client
	user      string // the agents' service account
	namespace string
	board     *board

	mu    sync.Mutex
	cache map[[32]byte]reviewed // by the token's hash: the token itself is not kept
}

type reviewed struct {
	node  string
	err   error
	until time.Time
}

func newReviewer(c client.Client, cfg Config, b *board) *reviewer {
	return &reviewer{
		client: c, board: b, namespace: cfg.Namespace, cache: map[[32]byte]reviewed{},
		user: "system:serviceaccount:" + cfg.Namespace + ":" + cfg.Agent,
	}
}

// node returns the node that the request's bearer may speak for.
func (v *reviewer) node(r *http.Request) (string, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" || len(token) > 16<<10 {
		return "", httpError{http.StatusUnauthorized, "a bearer token of the node's agent is needed"}
	}
	id := sha256.Sum256([]byte(token))
	now := time.Now()
	v.mu.Lock()
	for k, c := range v.cache {
		if !c.until.After(now) {
			delete(v.cache, k)
		}
	}
	known, hit := v.cache[id]
	v.mu.Unlock()
	if hit {
		return known.node, known.err
	}
	node, err, lasting := v.review(r.Context(), token)
	// Only the API server's own verdicts are kept, and of refusals not too many: anyone can make up tokens.
	v.mu.Lock()
	if lasting && (err == nil || len(v.cache) < 10000) {
		v.cache[id] = reviewed{node, err, now.Add(reviewLife)}
	}
	v.mu.Unlock()
	return node, err
}

func (v *reviewer) review(ctx context.Context, token string) (node string, err error, lasting bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tr := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{Audience}}}
	if err := v.client.Create(ctx, tr); err != nil {
		return "", httpError{http.StatusServiceUnavailable, fmt.Sprintf("the API server cannot review the token now: %v", err)}, false
	}
	st := tr.Status
	switch {
	case !st.Authenticated:
		return "", httpError{http.StatusUnauthorized, "the API server does not know this token: " + st.Error}, true
	case !slices.Contains(st.Audiences, Audience):
		return "", httpError{http.StatusUnauthorized, "the token is not for audience " + Audience}, true
	case st.User.Username != v.user:
		return "", httpError{http.StatusForbidden, fmt.Sprintf("%s is not an agent; agents are %s", st.User.Username, v.user)}, true
	}
	if n := st.User.Extra[extraNode]; len(n) == 1 && n[0] != "" {
		return n[0], nil, true
	}
	if p := st.User.Extra[extraPod]; len(p) == 1 {
		v.board.mu.Lock()
		pod := v.board.facts.Pods[v.namespace+"/"+p[0]]
		v.board.mu.Unlock()
		if pod != nil && pod.Node != "" {
			return pod.Node, nil, true
		}
		return "", httpError{http.StatusServiceUnavailable, "the agent's pod " + p[0] + " is not known yet"}, false
	}
	return "", httpError{http.StatusForbidden, "the token is not bound to a pod, so it speaks for no node: use a projected service account token"}, true
}
