// Package v1alpha1 holds the kinds that people write: on the hub [Cluster] and [Slice], on any cluster [Autoscaler].
//
// Spec is intent only: nobody fills in addresses of machines, ports or keys. Status is written by the hub alone and
// holds conditions and one row per cluster. What can be checked without other objects is checked by the API server
// itself, by the rules in the CRDs (deploy/crds, generated from the markers here); no webhook is needed.
//
// +kubebuilder:object:generate=true
// +groupName=seaway.dev
package v1alpha1

//go:generate go tool -modfile=../../tools/go.mod controller-gen object crd:crdVersions=v1,headerFile=/dev/null paths=. output:crd:artifacts:config=../../deploy/crds
