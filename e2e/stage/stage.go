// Package stage sets up what stories and the demo play on: the programs and images built from this tree, the lab's
// clusters, Seaway on them. It only runs commands that a person could type, and every method first looks at what is
// there, so that a lab left up (or half down after a crash) is used or repaired and not fought.
package stage

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Hub is the lab's cluster that holds the fleet's intent.
const Hub = "hub"

// SystemNamespace is where Seaway's own pods live, in the hub and in members.
const SystemNamespace = "seaway-system"

// Config says where things are.
type Config struct {
	Root   string    // of this source tree
	Cache  string    // for what is built; outside the tree
	Seaway string    // the product's program; built from Root if ""
	Lab    string    // the lab's program; built from Root if ""
	Out    io.Writer // progress
	Image  string    // use this one, which is in the nodes already; "": one of Seaway's program, named by its content
	Runner Runner    // Exec{} if nil
}

// Stage is a lab with Seaway on it.
type Stage struct {
	Config
	Probe string // of the pods' program, named by its content

	mu          sync.Mutex
	kubeconfigs map[string]string
}

// New prepares a stage; nothing is built or started yet.
func New(c Config) *Stage {
	if c.Runner == nil {
		c.Runner = Exec{}
	}
	if c.Out == nil {
		c.Out = io.Discard
	}
	return &Stage{Config: c, kubeconfigs: map[string]string{}}
}

// Here fills in what every program of the lab needs: the tree that the working directory is in, and a cache beside the user's
// others.
func (c Config) Here() (Config, error) {
	root, err := FindRoot()
	if err != nil {
		return c, err
	}
	cache, err := os.UserCacheDir()
	c.Root, c.Cache = root, filepath.Join(cache, "seaway", "e2e")
	return c, err
}

// FindRoot finds the tree that the working directory is in.
func FindRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "fleet", "fleet.go")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("run this inside Seaway's source tree")
		}
	}
}

// run runs a program and returns its standard output.
func (s *Stage) run(ctx context.Context, args ...string) (string, error) {
	out, _, err := s.Runner.Run(ctx, Command{Args: args})
	return out, err
}

// Labctl runs the lab's command.
func (s *Stage) Labctl(ctx context.Context, args ...string) (string, error) {
	return s.run(ctx, append([]string{s.Lab}, args...)...)
}

// Kubectl runs kubectl on a cluster.
func (s *Stage) Kubectl(ctx context.Context, cluster string, args ...string) (string, error) {
	return s.run(ctx, append([]string{s.Lab, "kubectl", cluster}, args...)...)
}

// Apply applies a manifest to a cluster.
func (s *Stage) Apply(ctx context.Context, cluster, manifest string) (string, error) {
	out, _, err := s.Runner.Run(ctx, Command{
		Args:  []string{s.Lab, "kubectl", cluster, "apply", "-f", "-"},
		Stdin: strings.NewReader(manifest),
	})
	return out, err
}

// Machine runs a command on one of the lab's machines.
func (s *Stage) Machine(ctx context.Context, machine string, args ...string) (string, error) {
	return s.run(ctx, append([]string{s.Lab, "exec", machine, "--"}, args...)...)
}

// Seawayctl runs the product's command against a cluster.
func (s *Stage) Seawayctl(ctx context.Context, cluster string, args ...string) (string, error) {
	k, err := s.Kubeconfig(ctx, cluster)
	if err != nil {
		return "", err
	}
	out, errs, err := s.Runner.Run(ctx, Command{Args: append(append([]string{s.Seaway}, args...), "--kubeconfig", k)})
	if err == nil && strings.TrimSpace(errs) != "" && strings.TrimSpace(out) == "" {
		out = errs // verbs that only tell their progress
	}
	return out, err
}

// Kubeconfig is the path of a cluster's administrator's credential.
func (s *Stage) Kubeconfig(ctx context.Context, cluster string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.kubeconfigs[cluster]; k != "" {
		return k, nil
	}
	out, err := s.Labctl(ctx, "kubeconfig", cluster)
	if err != nil {
		return "", fmt.Errorf("kubeconfig of %s: %w", cluster, err)
	}
	s.kubeconfigs[cluster] = strings.TrimSpace(out)
	return s.kubeconfigs[cluster], nil
}

// Errand is something for the probe in a pod to do.
type Errand struct {
	Cluster, Namespace string
	Pod                string // its name, or an app's, of which any running pod will do
	Args               []string
	Stdin              io.Reader // nil is nothing
	Live               io.Writer // also gets the output while it comes, if set
}

// Ask lets the probe in a pod do something and returns what it printed.
func (s *Stage) Ask(ctx context.Context, e Errand) (string, error) {
	name, err := s.PodName(ctx, e.Cluster, e.Namespace, e.Pod)
	if err != nil {
		return "", err
	}
	c := Command{Stdin: e.Stdin, Live: e.Live, Args: []string{s.Lab, "kubectl", e.Cluster, "exec", "-n", e.Namespace, name}}
	if e.Stdin != nil {
		c.Args = append(c.Args, "-i")
	}
	c.Args = append(append(c.Args, "--", "/probe"), e.Args...)
	out, _, err := s.Runner.Run(ctx, c)
	return out, err
}

// InPod is Ask without input.
func (s *Stage) InPod(ctx context.Context, cluster, namespace, pod string, args ...string) (string, error) {
	return s.Ask(ctx, Errand{Cluster: cluster, Namespace: namespace, Pod: pod, Args: args})
}

// PodName finds the pod that a story means by a name: the pod itself, or the first running pod of the app.
func (s *Stage) PodName(ctx context.Context, cluster, namespace, name string) (string, error) {
	pods, err := s.Pods(ctx, cluster, namespace)
	if err != nil {
		return "", err
	}
	for _, p := range pods {
		if p.Name == name {
			return name, nil
		}
	}
	for _, p := range pods {
		if p.App == name && p.Phase == "Running" && !p.Leaving {
			return p.Name, nil
		}
	}
	return "", fmt.Errorf("cluster %s has no running pod %s/%s", cluster, namespace, name)
}

// Pod is what stories want to know of a pod.
type Pod struct {
	Cluster, Namespace, Name, App, UID, Node, Phase, IP string
	Leaving, HostNetwork                                bool
	Containers                                          []Container
	Attached                                            Condition
}

// Container is one container of a pod.
type Container struct {
	Name, ID string
	Restarts int
	Started  time.Time
}

// Condition is one condition of a Kubernetes object.
type Condition struct {
	Status, Reason, Message string
}

// AttachedCondition is the type of a pod's condition for its link to the slice.
const AttachedCondition = "seaway.dev/attached"

// Pods lists the pods of a namespace ("" is all), sorted by namespace and name.
func (s *Stage) Pods(ctx context.Context, cluster, namespace string) ([]Pod, error) {
	args := []string{"get", "pods", "-o", "json"}
	if namespace == "" {
		args = append(args, "-A")
	} else {
		args = append(args, "-n", namespace)
	}
	out, err := s.Kubectl(ctx, cluster, args...)
	if err != nil {
		return nil, err
	}
	return parsePods(cluster, out)
}

func parsePods(cluster, text string) ([]Pod, error) {
	var list struct {
		Items []struct {
			Metadata struct {
				Name, Namespace, UID string
				Labels               map[string]string
				DeletionTimestamp    string
			}
			Spec struct {
				NodeName    string
				HostNetwork bool
			}
			Status struct {
				Phase, PodIP      string
				Conditions        []struct{ Type, Status, Reason, Message string }
				ContainerStatuses []struct {
					Name, ContainerID string
					RestartCount      int
					State             struct {
						Running struct{ StartedAt time.Time }
					}
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("pods of %s: %w", cluster, err)
	}
	var pods []Pod
	for _, i := range list.Items {
		p := Pod{
			Cluster: cluster, Namespace: i.Metadata.Namespace, Name: i.Metadata.Name, UID: i.Metadata.UID,
			App: i.Metadata.Labels["app"], Node: i.Spec.NodeName, Phase: i.Status.Phase, IP: i.Status.PodIP,
			Leaving: i.Metadata.DeletionTimestamp != "", HostNetwork: i.Spec.HostNetwork,
		}
		for _, c := range i.Status.ContainerStatuses {
			p.Containers = append(p.Containers, Container{c.Name, c.ContainerID, c.RestartCount, c.State.Running.StartedAt})
		}
		for _, c := range i.Status.Conditions {
			if c.Type == AttachedCondition {
				p.Attached = Condition{c.Status, c.Reason, c.Message}
			}
		}
		pods = append(pods, p)
	}
	slices.SortFunc(pods, func(a, b Pod) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return pods, nil
}

// say tells progress.
func (s *Stage) say(format string, args ...any) { fmt.Fprintf(s.Out, format+"\n", args...) }
