package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"seaway.dev/seaway/fleet"
)

// rollout is how long Seaway's own pods may take to be Ready.
const rollout = "90s"

// Install makes sure that the hub is installed and the members have joined, all with this tree's image.
func (s *Stage) Install(ctx context.Context, members ...string) error {
	l, err := s.Layout(ctx)
	if err != nil {
		return err
	}
	if err := s.installHub(ctx); err != nil {
		return err
	}
	return Each(members, func(m string) error {
		c, err := l.Cluster(m)
		if err != nil {
			return err
		}
		return s.join(ctx, c)
	})
}

func (s *Stage) installHub(ctx context.Context) error {
	installed, err := s.installed(ctx, Hub)
	if err != nil {
		return err
	}
	if installed != "" && installed != s.Image {
		s.say("the clusters have another build of Seaway (%s): removing it first", installed)
		if err := s.Uninstall(ctx); err != nil {
			return err
		}
		installed = ""
	}
	if installed == "" {
		if _, err := s.Seawayctl(ctx, Hub, "install", "hub", "--image", s.Image); err != nil {
			return fmt.Errorf("install the hub: %w", err)
		}
	}
	return s.awaitPods(ctx, Hub)
}

func (s *Stage) join(ctx context.Context, c Cluster) error {
	installed, err := s.installed(ctx, c.Name)
	if err != nil {
		return err
	}
	if installed == "" {
		token, err := s.Token(ctx, c.Name, c.Private)
		if err != nil {
			return err
		}
		if _, err := s.Seawayctl(ctx, c.Name, "join", "--token", token, "--image", s.Image); err != nil {
			return fmt.Errorf("join %s: %w", c.Name, err)
		}
	}
	return s.awaitPods(ctx, c.Name)
}

// Token makes a join token at the hub.
func (s *Stage) Token(ctx context.Context, cluster string, private bool) (string, error) {
	args := []string{"token", "create", cluster}
	if private {
		args = append(args, "--private")
	}
	out, err := s.Seawayctl(ctx, Hub, args...)
	if err != nil {
		return "", fmt.Errorf("token for %s: %w", cluster, err)
	}
	return strings.TrimSpace(out), nil
}

// installed is the image of Seaway that a cluster runs, "" if none.
func (s *Stage) installed(ctx context.Context, cluster string) (string, error) {
	out, err := s.Kubectl(ctx, cluster, "get", "deployments,daemonsets", "-n", SystemNamespace, "-o",
		"jsonpath={.items[*].spec.template.spec.containers[*].image}")
	if err != nil {
		return "", fmt.Errorf("what is installed in %s: %w", cluster, err)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(out), " ")
	return first, nil
}

// awaitPods waits until Seaway's pods in a cluster are Ready.
func (s *Stage) awaitPods(ctx context.Context, cluster string) error {
	_, err := s.Kubectl(ctx, cluster, "wait", "--for=condition=Ready", "pods", "--all", "-n", SystemNamespace, "--timeout="+rollout)
	if err != nil {
		return fmt.Errorf("pods of %s in %s: %w", SystemNamespace, cluster, err)
	}
	return nil
}

// Uninstall removes Seaway from every cluster of the lab, members first.
func (s *Stage) Uninstall(ctx context.Context) error {
	l, err := s.Layout(ctx)
	if err != nil {
		return err
	}
	err = Each(l.Members(), func(m string) error {
		if installed, err := s.installed(ctx, m); err != nil || installed == "" {
			return err
		}
		_, err := s.Seawayctl(ctx, m, "uninstall")
		return err
	})
	if err != nil {
		return err
	}
	if installed, err := s.installed(ctx, Hub); err != nil || installed == "" {
		return err
	}
	_, err = s.Seawayctl(ctx, Hub, "uninstall", "hub")
	return err
}

// Status is what a member's controller says of its cluster.
func (s *Stage) Status(ctx context.Context, cluster string) (fleet.Status, error) {
	var st fleet.Status
	out, err := s.Kubectl(ctx, cluster, "get", "configmap", "seaway-status", "-n", SystemNamespace, "-o", "jsonpath={.data.status}")
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		return st, fmt.Errorf("status of %s: %w", cluster, err)
	}
	return st, nil
}

// StoryLabel marks the namespaces that stories made.
const StoryLabel = "e2e.seaway.dev/story"

// Clean removes what stories made (namespaces, slices, faults) and waits until it is gone. Seaway stays installed.
func (s *Stage) Clean(ctx context.Context) error {
	l, err := s.Layout(ctx)
	if err != nil {
		return err
	}
	if err := s.Mend(ctx); err != nil {
		return err
	}
	errs := []error{Each(l.Members(), func(m string) error {
		_, err := s.Kubectl(ctx, m, "delete", "namespace", "-l", StoryLabel, "--timeout=60s")
		return err
	})}
	if out, err := s.Kubectl(ctx, Hub, "get", "crd", "slices.seaway.dev", "--ignore-not-found", "-o", "name"); err != nil {
		errs = append(errs, err)
	} else if strings.TrimSpace(out) != "" {
		_, err := s.Kubectl(ctx, Hub, "delete", "slices.seaway.dev", "--all", "--timeout=60s")
		errs = append(errs, err, s.readmit(ctx))
	}
	return errors.Join(errs...)
}

// readmit admits all nodes again that a story revoked.
func (s *Stage) readmit(ctx context.Context) error {
	out, err := s.Kubectl(ctx, Hub, "get", "clusters.seaway.dev", "-o", `jsonpath={.items[?(@.spec.revokedNodes)].metadata.name}`)
	for _, name := range strings.Fields(out) {
		_, perr := s.Kubectl(ctx, Hub, "patch", "clusters.seaway.dev", name, "--type=merge", "-p", `{"spec":{"revokedNodes":null}}`)
		err = errors.Join(err, perr)
	}
	return err
}

// Each does the same for all names at once and joins the errors.
func Each(names []string, f func(string) error) error {
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, n := range names {
		wg.Go(func() { errs[i] = f(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// poll is how often a condition in a cluster is looked at.
const poll = 250 * time.Millisecond

// Await waits for a condition for a time.
func Await(ctx context.Context, limit time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("waited %s", limit))
	defer cancel()
	return Eventually(ctx, poll, f)
}
