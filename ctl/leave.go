package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	coordinationv1 "k8s.io/api/coordination/v1"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/hub/credential"
	"seaway.dev/seaway/hub/place"
	"seaway.dev/seaway/install"
)

type leaveOptions struct {
	force bool
	wait  time.Duration
}

func (c *cli) leaveCmd() *cobra.Command {
	var o leaveOptions
	cmd := &cobra.Command{
		Use: "leave", Short: "Take this cluster out of its fleet and put it back as it was", Args: cobra.NoArgs,
		Long: `Take this cluster out of its fleet: the nodes remove every trace, the cluster's DNS becomes
what it was, Seaway's objects are removed, and the hub forgets the cluster. Your pods keep
running. Running it again goes on where it stopped.`,
		Example: `  seaway leave
  seaway leave --force        # also when nodes or the hub do not answer`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.leave(cmd.Context(), o) },
	}
	cmd.Flags().BoolVar(&o.force, "force", false, "go on when nodes or the hub do not answer, and say what is left behind")
	cmd.Flags().DurationVar(&o.wait, "wait", 2*time.Minute, "how long to wait for the nodes")
	return cmd
}

func (c *cli) leave(ctx context.Context, o leaveOptions) error {
	t, err := c.connect()
	if err != nil {
		return err
	}
	p := c.progress()
	there, err := t.isMember(ctx)
	if err != nil {
		return err
	}
	if !there {
		p.tell("this cluster is in no fleet: nothing to do")
		return nil
	}
	cred, err := t.credential(ctx)
	if err != nil && !o.force {
		return err
	}
	var left []string
	if err := p.step("nodes remove every trace", func(say func(string)) (string, error) { return t.purge(ctx, o, say) }); err != nil {
		if !o.force || ctx.Err() != nil {
			return err
		}
		left = append(left, err.Error())
	}
	if cred != nil {
		if what := c.sayLeaving(ctx, p, *cred); what != "" {
			if !o.force {
				return fail(ExitUnreachable, "%s", what).then("try again when the hub answers; or `seaway leave --force`, and then on the hub `seaway cluster delete %s`", cred.Cluster)
			}
			left = append(left, what)
		}
	}
	kept, err := c.removeMember(ctx, p, t)
	if err != nil {
		return err
	}
	for _, k := range kept {
		p.tell("kept: %s", k)
	}
	if left != nil {
		return fail(ExitPartial, "the cluster has left, and this was left behind: %s", strings.Join(left, "; ")).
			then("once those nodes answer again, join and leave once more, or remove /run/seaway and /var/lib/seaway on them; on the hub: seaway cluster list")
	}
	p.tell("\nThe cluster has left its fleet and is as it was.")
	return nil
}

// isMember tells whether anything of a member is here.
func (t *target) isMember(ctx context.Context) (bool, error) {
	for _, o := range []client.Object{&corev1.ConfigMap{}, &corev1.Secret{}} {
		name := install.Settings
		if _, ok := o.(*corev1.Secret); ok {
			name = credential.SecretName
		}
		err := t.Get(ctx, client.ObjectKey{Namespace: install.Namespace, Name: name}, o)
		if err == nil {
			return true, nil
		}
		if !apierrors.IsNotFound(err) {
			return false, err
		}
	}
	return false, nil
}

// purge asks the controller to clear the nodes, and waits until it says that they are.
func (t *target) purge(ctx context.Context, o leaveOptions, say func(string)) (string, error) {
	cm := &corev1.ConfigMap{}
	cm.Namespace, cm.Name = install.Namespace, install.Settings
	patch := client.RawPatch(types.MergePatchType, []byte(`{"data":{"leaving":"true"}}`))
	if err := t.Patch(ctx, cm, patch); apierrors.IsNotFound(err) {
		return "already done", nil
	} else if err != nil {
		return "", fmt.Errorf("tell the controller to leave: %w", err)
	}
	var last fleet.Status
	err := poll(ctx, o.wait, 300*time.Millisecond, func() (bool, error) {
		s, err := t.status(ctx)
		if err != nil || s == nil {
			return false, client.IgnoreNotFound(err)
		}
		last = *s
		say(s.Purged + " nodes")
		done, of, ok := strings.Cut(s.Purged, "/")
		return ok && done == of, nil
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		return last.Purged + " nodes", err
	}
	var silent []string
	for _, n := range last.Nodes {
		if !n.Purged {
			silent = append(silent, n.Name)
		}
	}
	who := "the controller does not answer"
	if silent != nil {
		who = "no word from node " + strings.Join(silent, ", ")
	}
	return last.Purged, fail(ExitUnreachable, "after %s %s", o.wait, who).
		then("bring them back and run this again, or go on without them: seaway leave --force")
}

// status reads what the controller says of this cluster; nil if it has said nothing yet.
func (t *target) status(ctx context.Context) (*fleet.Status, error) {
	var cm corev1.ConfigMap
	if err := t.Get(ctx, client.ObjectKey{Namespace: install.Namespace, Name: install.StatusMap}, &cm); err != nil {
		return nil, err
	}
	var s fleet.Status
	if err := json.Unmarshal([]byte(cm.Data["status"]), &s); err != nil {
		return nil, nil
	}
	return &s, nil
}

// sayLeaving asks the hub to forget this cluster; it returns what went wrong, in words.
func (c *cli) sayLeaving(ctx context.Context, p *progress, cred credential.Credential) string {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := p.step("the hub forgets the cluster", func(func(string)) (string, error) {
		// The access token may have ended while the cluster was away.
		if fresh, err := credential.MintAt(ctx, cred, false); err == nil {
			cred.Access = fresh
		} else if apierrors.IsUnauthorized(err) || apierrors.IsNotFound(err) {
			return "it already has", nil
		} else {
			return "", err
		}
		hub, err := atHub(cred)
		if err != nil {
			return "", err
		}
		lease := &coordinationv1.Lease{}
		lease.Namespace, lease.Name = place.Mailbox(cred.Cluster), place.Alive
		patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, place.AnnotationLeaving, time.Now().UTC().Format(time.RFC3339))
		if err := hub.Patch(ctx, lease, client.RawPatch(types.MergePatchType, []byte(patch))); client.IgnoreNotFound(err) != nil {
			return "", err
		}
		return "", forgotten(ctx, hub, cred.Cluster)
	})
	if err != nil {
		return fmt.Sprintf("the hub at %s was not told (%v)", cred.Server, err)
	}
	return ""
}

// forgotten waits until the hub has taken the cluster's credential away.
func forgotten(ctx context.Context, hub *target, cluster string) error {
	return poll(ctx, 25*time.Second, 300*time.Millisecond, func() (bool, error) {
		var cl v1alpha1.Cluster
		err := hub.Get(ctx, client.ObjectKey{Name: cluster}, &cl)
		if apierrors.IsNotFound(err) || apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) {
			return true, nil
		}
		return err == nil && cl.DeletionTimestamp != nil, err
	})
}

// removeMember removes everything of a member from the cluster. It returns what it kept, and why.
func (c *cli) removeMember(ctx context.Context, p *progress, t *target) ([]string, error) {
	if err := p.step("the cluster's DNS becomes what it was", func(func(string)) (string, error) { return t.unforwardZones(ctx) }); err != nil {
		return nil, err
	}
	var kept []string
	err := p.step("Seaway's objects are removed", func(say func(string)) (string, error) {
		n := 0
		told := func(what string) { n++; say(what) }
		if err := install.RemoveMember(ctx, t, told); err != nil {
			return "", err
		}
		var err error
		if kept, err = t.removeMCS(ctx, told); err != nil {
			return "", err
		}
		hub, err := t.isHub(ctx)
		if err != nil {
			return "", err
		}
		scaler, err := t.hasAutoscaler(ctx)
		if err != nil {
			return "", err
		}
		if !hub && !scaler {
			err = install.RemoveNamespaces(ctx, t, told, install.Namespace)
		} else {
			err = t.removeLeases(ctx, told)
		}
		return fmt.Sprintf("%d objects", n), err
	})
	return kept, err
}

// isHub tells whether the hub runs in this cluster, too.
func (t *target) isHub(ctx context.Context) (bool, error) {
	var d apiextensionsv1.CustomResourceDefinition
	err := t.Get(ctx, client.ObjectKey{Name: "clusters.seaway.dev"}, &d)
	return err == nil, client.IgnoreNotFound(err)
}

// removeLeases removes the controller's election, which carries no label.
func (t *target) removeLeases(ctx context.Context, told func(string)) error {
	l := &coordinationv1.Lease{}
	l.Namespace, l.Name = install.Namespace, install.ControllerRole
	err := t.Delete(ctx, l)
	if err == nil {
		told("Lease " + l.Name)
	}
	return client.IgnoreNotFound(err)
}

// removeMCS removes the kinds of the MCS-API if Seaway brought them along and nobody else uses them.
func (t *target) removeMCS(ctx context.Context, told func(string)) ([]string, error) {
	var exports mcsv1beta1.ServiceExportList
	if err := t.List(ctx, &exports); err == nil {
		for i := range exports.Items {
			if e := &exports.Items[i]; e.Labels[place.LabelManagedBy] == "seaway" {
				if err := t.Delete(ctx, e); client.IgnoreNotFound(err) != nil {
					return nil, err
				}
				told("ServiceExport " + e.Namespace + "/" + e.Name)
			}
		}
	}
	if err := t.List(ctx, &exports); err != nil {
		exports.Items = nil
	}
	var imports mcsv1beta1.ServiceImportList
	if err := t.List(ctx, &imports); err != nil {
		imports.Items = nil
	}
	if n := len(exports.Items) + len(imports.Items); n > 0 {
		return []string{fmt.Sprintf("the MCS-API kinds, because %d ServiceExports and ServiceImports that Seaway did not make are there", n)}, nil
	}
	for _, d := range install.MCS() {
		var have apiextensionsv1.CustomResourceDefinition
		err := t.Get(ctx, client.ObjectKeyFromObject(d), &have)
		if apierrors.IsNotFound(err) || err == nil && have.Labels[install.LabelInstalled] != "true" {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := t.Delete(ctx, &have); client.IgnoreNotFound(err) != nil {
			return nil, err
		}
		told("CustomResourceDefinition " + have.Name)
		if err := install.Gone(ctx, t, d); err != nil {
			return nil, err
		}
	}
	return nil, nil
}
