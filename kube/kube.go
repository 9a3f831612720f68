// Package kube is the seam to Kubernetes that the hub, the controller and the CLI share: which kinds a client knows,
// where it connects, and how a problem becomes a condition.
package kube

import (
	"fmt"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"seaway.dev/seaway/api/v1alpha1"
)

// Scheme returns a scheme with the kinds that Seaway reads and writes.
func Scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, mcsv1beta1.Install, v1alpha1.AddToScheme,
	} {
		if err := add(s); err != nil {
			panic(err) // two kinds of one name: a mistake in this list
		}
	}
	return s
}

// Config finds the cluster to speak with: the given kubeconfig file, or, if file is empty, what kubectl would use
// ($KUBECONFIG, ~/.kube/config, or the pod's own account); context "" is the file's current one.
func Config(file, context string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = file
	c, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("find the cluster to speak with: %w (name one with --kubeconfig FILE or --context NAME)", err)
	}
	return c, nil
}
