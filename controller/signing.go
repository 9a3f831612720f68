package controller

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/fleet"
)

// SigningSecret holds the key with which the cluster signs its bulletins. It is made here and never leaves the
// cluster; the hub publishes the public part.
const (
	SigningSecret = "seaway-signing"
	signingKey    = "ed25519" // its key there: the seed, 32 bytes
)

// openSigning reads the signing key, or makes one.
func openSigning(ctx context.Context, c client.Client, namespace string) (ed25519.PrivateKey, error) {
	var s corev1.Secret
	at := client.ObjectKey{Namespace: namespace, Name: SigningSecret}
	err := c.Get(ctx, at, &s)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return nil, fmt.Errorf("secret %s: %w", at, err)
	}
	if seed := s.Data[signingKey]; len(seed) == ed25519.SeedSize {
		return ed25519.NewKeyFromSeed(seed), nil
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	s.ObjectMeta.Namespace, s.ObjectMeta.Name = namespace, SigningSecret
	s.Labels = map[string]string{componentLabel: componentValue}
	s.Data = map[string][]byte{signingKey: key.Seed()}
	if missing {
		err = c.Create(ctx, &s)
	} else {
		err = c.Update(ctx, &s)
	}
	if err != nil {
		return nil, fmt.Errorf("write secret %s: %w", at, err)
	}
	return key, nil
}

// publicKey is what the others check signatures with.
func publicKey(key ed25519.PrivateKey) fleet.Key {
	if len(key) == 0 {
		return fleet.Key{}
	}
	return fleet.Key(key.Public().(ed25519.PublicKey))
}
