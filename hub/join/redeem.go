package join

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/nacl/box"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/hub/credential"
	"seaway.dev/seaway/hub/place"
	"seaway.dev/seaway/hub/token"
)

// How often the member looks for the hub's answer, and how long it waits for one.
const (
	askEvery = 300 * time.Millisecond
	askFor   = 90 * time.Second
)

// Hub returns a client that presents a join token's secret.
func Hub(t token.Token) (kubernetes.Interface, error) {
	c, err := kubernetes.NewForConfig(&rest.Config{
		Host: t.Server, TLSClientConfig: rest.TLSClientConfig{CAData: t.CA}, BearerToken: t.Bearer,
		UserAgent: "seaway-join/" + t.Cluster, Timeout: 15 * time.Second, QPS: 20, Burst: 20,
	})
	if err != nil {
		return nil, fmt.Errorf("hub %s: %w", t.Server, err)
	}
	return c, nil
}

// Redeem turns a join token into a credential. It writes nothing but the token's ConfigMap on the hub, so that when
// it fails nothing has changed on the member. Uid is the member's kube-system namespace's.
func Redeem(ctx context.Context, hub kubernetes.Interface, t token.Token, uid string, w Wish) (credential.Credential, error) {
	public, private, err := box.GenerateKey(rand.Reader)
	if err != nil {
		return credential.Credential{}, fmt.Errorf("make a key: %w", err)
	}
	r := redemption{maps: hub.CoreV1().ConfigMaps(place.Joins), token: t, public: public, private: private}
	cm, err := r.claim(ctx, Claim{Version: fleet.WireVersion, Key: fleet.Key(*public), UID: uid, Wish: w})
	if err != nil {
		return credential.Credential{}, err
	}
	g, cm, err := r.await(ctx, cm)
	if err != nil {
		return credential.Credential{}, err
	}
	if g.Cluster != t.Cluster {
		return credential.Credential{}, fmt.Errorf("the hub's answer is for cluster %q, the token for %q: make a new token", g.Cluster, t.Cluster)
	}
	// Saying so lets the hub clean up at once; without it the hub does so after a minute.
	cm.Data[keyFetched] = "true"
	_, _ = r.maps.Update(ctx, cm, metav1.UpdateOptions{})
	return credential.Credential{Cluster: g.Cluster, Server: t.Server, CA: t.CA, Access: g.Access, Renewal: g.Renewal}, nil
}

type redemption struct {
	maps            corev1client.ConfigMapInterface
	token           token.Token
	public, private *[32]byte
}

// claim writes the claim, if nobody has before.
func (r redemption) claim(ctx context.Context, c Claim) (*corev1.ConfigMap, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	cm, err := r.maps.Get(ctx, r.token.ID, metav1.GetOptions{})
	if err != nil {
		return nil, r.explain(err)
	}
	if cm.Data[keyClaim] != "" && cm.Data[keyRefusal] == "" {
		return nil, r.used()
	}
	delete(cm.Data, keyRefusal)
	if cm.Data == nil {
		cm.Data = map[string]string{}
	}
	cm.Data[keyClaim] = string(text)
	cm, err = r.maps.Update(ctx, cm, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) {
		return nil, r.used()
	}
	if err != nil {
		return nil, r.explain(err)
	}
	return cm, nil
}

// await waits for the hub's answer and opens it.
func (r redemption) await(ctx context.Context, mine *corev1.ConfigMap) (Grant, *corev1.ConfigMap, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return Grant{}, nil, fmt.Errorf("the hub at %s did not answer the claim within %s: check that the hub runs "+
				"(kubectl -n %s get deploy seaway-hub, on the hub), then run this again with a new token", r.token.Server, askFor, place.System)
		case <-tick.C:
		}
		cm, err := r.maps.Get(ctx, r.token.ID, metav1.GetOptions{})
		switch {
		case ctx.Err() != nil:
			continue
		case err != nil && passing(err):
			continue // the claim is in; a dropped connection is no reason to lose it
		case err != nil:
			return Grant{}, nil, r.explain(err)
		case cm.Data[keyClaim] != mine.Data[keyClaim]:
			return Grant{}, nil, r.used()
		case cm.Data[keyRefusal] != "":
			var no Refusal
			if err := json.Unmarshal([]byte(cm.Data[keyRefusal]), &no); err != nil {
				return Grant{}, nil, fmt.Errorf("the hub refused, but its answer is damaged: %w", err)
			}
			return Grant{}, nil, &no
		case cm.Data[keyAnswer] != "":
			g, err := open(cm.Data[keyAnswer], r.public, r.private, time.Now())
			return g, cm, err
		}
	}
}

func (r redemption) again() string {
	return fmt.Sprintf("make a new one on the hub with `seaway token create %s`", r.token.Cluster)
}

func (r redemption) used() error {
	return &Refusal{Reason: "TokenUsed", Message: fmt.Sprintf("this join token for %s is already used", r.token.Cluster), Next: r.again()}
}

// explain turns what the API server or the network said into what a person can act on.
func (r redemption) explain(err error) error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	switch {
	case apierrors.IsUnauthorized(err), apierrors.IsForbidden(err), apierrors.IsNotFound(err):
		return &Refusal{Reason: "TokenInvalid", Next: r.again(),
			Message: fmt.Sprintf("the hub at %s does not accept this join token: it is used, revoked, expired, changed, or another hub's", r.token.Server)}
	case errors.As(err, &unknown), errors.As(err, &host):
		return fmt.Errorf("whoever answers at %s is not the hub that made this token (%w): check the address, or, if the hub was made anew, %s",
			r.token.Server, err, r.again())
	case passing(err):
		return fmt.Errorf("the hub at %s cannot be reached from here (%w): open the way, or name another address with `seaway token create %s --server URL`",
			r.token.Server, err, r.token.Cluster)
	}
	return fmt.Errorf("ask the hub at %s: %w", r.token.Server, err)
}

// passing tells whether an error comes from the way to the hub or its load, and not from what was asked.
func passing(err error) bool {
	var status apierrors.APIStatus
	return !errors.As(err, &status) || apierrors.IsTooManyRequests(err) || apierrors.IsInternalError(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err)
}
