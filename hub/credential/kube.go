package credential

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"seaway.dev/seaway/hub/place"
)

// Where a member keeps its credential.
const (
	SecretNamespace = "seaway-system"
	SecretName      = "seaway-hub-credential"
	secretKey       = "credential.json"
)

// Secret returns the credential as the object that the member keeps it in.
func (c Credential) Secret() (*corev1.Secret, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("hub credential of %s: %w", c.Cluster, err)
	}
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: SecretNamespace, Name: SecretName, Labels: place.Labels("member", "")},
		Type:       "seaway.dev/hub-credential",
		Data:       map[string][]byte{secretKey: b},
	}, nil
}

// FromSecret reads what [Credential.Secret] made.
func FromSecret(s *corev1.Secret) (Credential, error) {
	var c Credential
	if err := json.Unmarshal(s.Data[secretKey], &c); err != nil {
		return c, fmt.Errorf("secret %s/%s is damaged (%w): join again with a new token", s.Namespace, s.Name, err)
	}
	return c, c.Validate()
}

// InSecret is a Store in the member's own cluster.
func InSecret(member kubernetes.Interface) Store {
	return secretStore{member.CoreV1().Secrets(SecretNamespace)}
}

type secretStore struct {
	secrets corev1client.SecretInterface
}

func (s secretStore) Load(ctx context.Context) (Credential, error) {
	o, err := s.secrets.Get(ctx, SecretName, metav1.GetOptions{})
	if err != nil {
		return Credential{}, err
	}
	return FromSecret(o)
}

// Save keeps the Secret's other fields as they are, and fails on a conflict: then the next round finds what the other
// replica stored.
func (s secretStore) Save(ctx context.Context, c Credential) error {
	o, err := s.secrets.Get(ctx, SecretName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	want, err := c.Secret()
	if err != nil {
		return err
	}
	o.Data = want.Data
	_, err = s.secrets.Update(ctx, o, metav1.UpdateOptions{})
	return err
}

// MintAt asks the hub itself for a token, presenting the renewal token.
func MintAt(ctx context.Context, c Credential, renewal bool) (Token, error) {
	hub, err := kubernetes.NewForConfig(&rest.Config{
		Host: c.Server, TLSClientConfig: rest.TLSClientConfig{CAData: c.CA}, BearerToken: string(c.Renewal.Text),
		UserAgent: "seaway/" + c.Cluster, Timeout: 20 * time.Second,
	})
	if err != nil {
		return Token{}, fmt.Errorf("hub %s: %w", c.Server, err)
	}
	return Issue(ctx, hub, c.Cluster, renewal)
}

// AuthorityAt asks the hub itself: Kubernetes publishes its authorities in each namespace, so in the member's mailbox.
func AuthorityAt(ctx context.Context, c Credential) ([]byte, error) {
	hub, err := kubernetes.NewForConfig(&rest.Config{
		Host: c.Server, TLSClientConfig: rest.TLSClientConfig{CAData: c.CA}, BearerToken: string(c.Access.Text),
		UserAgent: "seaway/" + c.Cluster, Timeout: 20 * time.Second,
	})
	if err != nil {
		return nil, fmt.Errorf("hub %s: %w", c.Server, err)
	}
	cm, err := hub.CoreV1().ConfigMaps(place.Mailbox(c.Cluster)).Get(ctx, place.Authorities, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return []byte(cm.Data["ca.crt"]), nil
}

// Issue requests a token of one of a member's two accounts, with the rights of the given client.
func Issue(ctx context.Context, hub kubernetes.Interface, cluster string, renewal bool) (Token, error) {
	ns, life := place.Members, AccessLife
	if renewal {
		ns, life = place.Renewal, RenewalLife
	}
	return Request(ctx, hub, ns, cluster, life)
}

// Request asks an API server for a token of a ServiceAccount.
func Request(ctx context.Context, c kubernetes.Interface, namespace, account string, life time.Duration) (Token, error) {
	seconds := int64(life / time.Second)
	now := time.Now()
	tr, err := c.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds},
	}, metav1.CreateOptions{})
	if err != nil {
		return Token{}, fmt.Errorf("token of service account %s/%s: %w", namespace, account, err)
	}
	if s := tr.Spec.ExpirationSeconds; s != nil && *s > 0 {
		life = time.Duration(*s) * time.Second
	}
	return Token{Text: Bearer(tr.Status.Token), Issued: now, Life: life}, nil
}
