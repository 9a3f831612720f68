package api

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"

	"sigs.k8s.io/yaml"
)

// kinds that Apply knows, so that no discovery is needed.
var kinds = map[string]struct {
	resource   string
	namespaced bool
}{
	"ServiceAccount":     {"serviceaccounts", true},
	"ConfigMap":          {"configmaps", true},
	"Service":            {"services", true},
	"Deployment":         {"deployments", true},
	"RoleBinding":        {"rolebindings", true},
	"ClusterRole":        {"clusterroles", false},
	"ClusterRoleBinding": {"clusterrolebindings", false},
	"APIService":         {"apiservices", false},
}

type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
}

func (o object) path() (string, error) {
	k, ok := kinds[o.Kind]
	if !ok {
		return "", fmt.Errorf("cannot apply a %s", o.Kind)
	}
	root := "/apis/" + o.APIVersion
	if !strings.Contains(o.APIVersion, "/") {
		root = "/api/" + o.APIVersion
	}
	if k.namespaced {
		root += "/namespaces/" + o.Metadata.Namespace
	}
	return root + "/" + k.resource + "/" + o.Metadata.Name, nil
}

// Apply sends every document of a manifest by server-side apply.
func (c *Client) Apply(ctx context.Context, manifest []byte) error {
	for doc := range bytes.SplitSeq(manifest, []byte("\n---\n")) {
		var o object
		if err := yaml.Unmarshal(doc, &o); err != nil {
			return fmt.Errorf("manifest: %w", err)
		}
		p, err := o.path()
		if err != nil {
			return err
		}
		err = c.do(ctx, http.MethodPatch, p+"?fieldManager=seaway-lab&force=true", "application/apply-patch+yaml", doc, nil)
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", o.Kind, o.Metadata.Name, err)
		}
	}
	return nil
}
