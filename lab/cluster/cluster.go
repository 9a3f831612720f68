// Package cluster brings a cluster from "its machines run" to "usable".
package cluster

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"time"

	"seaway.dev/seaway/lab/api"
	"seaway.dev/seaway/lab/layout"
)

//go:embed manifests
var manifests embed.FS

const every = 150 * time.Millisecond

// Cluster is one that runs.
type Cluster struct {
	Plan layout.Cluster
	API  *api.Client
}

// Open a cluster whose keys are in pkiDir.
func Open(plan layout.Cluster, pkiDir string) (Cluster, error) {
	c, err := api.New(plan.Server(), pkiDir, "admin")
	return Cluster{Plan: plan, API: c}, err
}

// AwaitAPI waits for the API server.
func (c Cluster) AwaitAPI(ctx context.Context) error {
	return api.Poll(ctx, every, func(ctx context.Context) (bool, error) {
		err := c.API.Ready(ctx)
		return err == nil, err
	})
}

// node is what the lab looks at in a Node.
type node struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		PodCIDR string `json:"podCIDR"`
	} `json:"spec"`
	Status struct {
		Conditions []struct {
			Type, Status      string
			LastHeartbeatTime time.Time
		} `json:"conditions"`
	} `json:"status"`
}

// ready says whether the kubelet has said so since a time.
func (n node) ready(since time.Time) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True" && !c.LastHeartbeatTime.Before(since)
		}
	}
	return false
}

// ReportAfter is the earliest time of a report that was surely made after a moment. Times in the API are whole seconds:
// one that bears the moment's own second may be from before it. Kubelets report every 4 s.
func ReportAfter(moment time.Time) time.Time { return moment.Truncate(time.Second).Add(time.Second) }

// Nodes tells for every registered node whether it is Ready.
func (c Cluster) Nodes(ctx context.Context) (map[string]bool, error) {
	nodes, err := c.nodes(ctx)
	ready := map[string]bool{}
	for _, n := range nodes {
		ready[n.Metadata.Name] = n.ready(time.Time{})
	}
	return ready, err
}

func (c Cluster) nodes(ctx context.Context) ([]node, error) {
	var list struct{ Items []node }
	err := c.API.Get(ctx, "/api/v1/nodes", &list)
	return list.Items, err
}

// AwaitNodes waits until nodes are Ready (all of them if none is named), and
// tells the API which pod network each has: the CNI configuration is static,
// and the API only copies it. A report from before since does not count: for a
// while after a power cut the API still shows the last one.
func (c Cluster) AwaitNodes(ctx context.Context, since time.Time, names ...string) error {
	want := map[string]string{}
	for _, n := range c.Plan.Nodes() {
		if len(names) == 0 || slices.Contains(names, n.Name) {
			want[n.Name] = n.PodCIDR.String()
		}
	}
	return api.Poll(ctx, every, func(ctx context.Context) (bool, error) {
		nodes, err := c.nodes(ctx)
		if err != nil {
			return false, err
		}
		var missing []string
		seen := map[string]bool{}
		for _, n := range nodes {
			cidr, ok := want[n.Metadata.Name]
			if !ok {
				continue
			}
			seen[n.Metadata.Name] = n.ready(since)
			if n.Spec.PodCIDR == "" {
				if err := c.setPodCIDR(ctx, n.Metadata.Name, cidr); err != nil {
					return false, err
				}
			}
		}
		for name := range want {
			if !seen[name] {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			return false, fmt.Errorf("not Ready: %s", strings.Join(missing, ", "))
		}
		return true, nil
	})
}

func (c Cluster) setPodCIDR(ctx context.Context, node, cidr string) error {
	return c.API.Patch(ctx, "/api/v1/nodes/"+node, map[string]any{"spec": map[string]any{"podCIDR": cidr, "podCIDRs": []string{cidr}}})
}

// AwaitServiceAccount waits until pods can be made.
func (c Cluster) AwaitServiceAccount(ctx context.Context) error {
	return api.Poll(ctx, every, func(ctx context.Context) (bool, error) {
		err := c.API.Get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil)
		return err == nil, err
	})
}

// ApplyDNS installs CoreDNS.
func (c Cluster) ApplyDNS(ctx context.Context) error { return c.apply(ctx, "coredns.yaml") }

// AwaitDNS waits until CoreDNS is available.
func (c Cluster) AwaitDNS(ctx context.Context) error { return c.awaitDeployment(ctx, "coredns") }

// ApplyMetrics installs metrics-server.
func (c Cluster) ApplyMetrics(ctx context.Context) error { return c.apply(ctx, "metrics-server.yaml") }

// AwaitMetrics waits until metrics-server is available.
func (c Cluster) AwaitMetrics(ctx context.Context) error {
	return c.awaitDeployment(ctx, "metrics-server")
}

func (c Cluster) apply(ctx context.Context, name string) error {
	b, err := c.manifest(name)
	if err != nil {
		return err
	}
	return c.API.Apply(ctx, b)
}

func (c Cluster) manifest(name string) ([]byte, error) {
	t, err := template.ParseFS(manifests, "manifests/"+name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, c.Plan)
	return b.Bytes(), err
}

func (c Cluster) awaitDeployment(ctx context.Context, name string) error {
	return api.Poll(ctx, every, func(ctx context.Context) (bool, error) {
		var d struct {
			Status struct {
				AvailableReplicas, UpdatedReplicas int
				Conditions                         []struct{ Type, Status, Message string }
			}
		}
		if err := c.API.Get(ctx, "/apis/apps/v1/namespaces/kube-system/deployments/"+name, &d); err != nil {
			return false, err
		}
		if d.Status.AvailableReplicas > 0 {
			return true, nil
		}
		return false, fmt.Errorf("%s is not available yet: %+v", name, d.Status.Conditions)
	})
}
