// Package crds holds the custom resource definitions of Seaway's kinds, generated from package api/v1alpha1.
package crds

import _ "embed" // for the files below

// The definitions, as YAML.
var (
	//go:embed seaway.dev_clusters.yaml
	Clusters []byte
	//go:embed seaway.dev_slices.yaml
	Slices []byte
	//go:embed seaway.dev_autoscalers.yaml
	Autoscalers []byte
)
