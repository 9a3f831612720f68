package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"seaway.dev/seaway/hub/place"
)

// namespaceFlag gives a verb -n, with the context's namespace as its default.
func (c *cli) namespaceFlag(cmd *cobra.Command, ns *string) {
	cmd.Flags().StringVarP(ns, "namespace", "n", "", "`NAMESPACE` of the service (default: the context's)")
}

func (c *cli) namespace(given string) string {
	if given != "" {
		return given
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	ns, _, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: c.context}).Namespace()
	if err != nil || ns == "" {
		return metav1.NamespaceDefault
	}
	return ns
}

func (c *cli) exportCmd() *cobra.Command {
	var ns string
	cmd := &cobra.Command{
		Use: "export SERVICE", Short: "Offer a service to its slice's other clusters", Args: cobra.ExactArgs(1),
		Long: `Offer a service to the other clusters of its namespace's slice, as
SERVICE.NAMESPACE.svc.clusterset.local. It makes a ServiceExport (multicluster.x-k8s.io).`,
		Example: "  seaway export web -n pay",
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			key := client.ObjectKey{Namespace: c.namespace(ns), Name: args[0]}
			if err := t.mayExport(cmd.Context(), key); err != nil {
				return err
			}
			e := &mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name,
				Labels: map[string]string{place.LabelManagedBy: "seaway"}}}
			err = t.Create(cmd.Context(), e)
			switch {
			case apierrors.IsAlreadyExists(err):
				c.progress().tell("service %s is already exported", key)
			case isNoNamespace(err):
				return fail(ExitFailed, "there is no namespace %s", key.Namespace).then("kubectl get namespaces")
			case err != nil:
				return notMember(err)
			}
			fmt.Fprintf(c.Out, "%s.%s.svc.clusterset.local\n", key.Name, key.Namespace)
			return nil
		},
	}
	c.namespaceFlag(cmd, &ns)
	return cmd
}

// mayExport refuses what would have no effect: most often a name is misspelt. Whoever wants to say it ahead applies a
// ServiceExport, which takes effect as soon as it can and says why not until then.
func (t *target) mayExport(ctx context.Context, key client.ObjectKey) error {
	ahead := "to offer it ahead, apply a ServiceExport yourself: it takes effect as soon as it can"
	if _, err := t.kube.CoreV1().Services(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{}); apierrors.IsNotFound(err) {
		return fail(ExitFailed, "there is no service %s", key).then("kubectl get services -n %s; %s", key.Namespace, ahead)
	} else if err != nil {
		return err
	}
	var on bool
	err := poll(ctx, sliceNews, 500*time.Millisecond, func() (bool, error) {
		s, err := t.status(ctx)
		if err != nil {
			return false, notMember(err)
		}
		on = s == nil // the controller does not say yet
		for i := 0; s != nil && i < len(s.Slices) && !on; i++ {
			on = slices.Contains(s.Slices[i].Namespaces, key.Namespace)
		}
		return on, nil
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fail(ExitFailed, "namespace %s is on no slice, so nobody would see the service", key.Namespace).
			then("on the hub: seaway slice create NAME --namespace %s; %s", key.Namespace, ahead)
	}
	return err
}

// sliceNews is how long a slice that was just made may take to be known on its members.
const sliceNews = 8 * time.Second

func (c *cli) unexportCmd() *cobra.Command {
	var ns string
	cmd := &cobra.Command{
		Use: "unexport SERVICE", Short: "Take back the offer of a service", Args: cobra.ExactArgs(1),
		Example: "  seaway unexport web -n pay",
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			e := &mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace(ns), Name: args[0]}}
			if err := t.Delete(cmd.Context(), e); apierrors.IsNotFound(err) {
				return fail(ExitFailed, "service %s/%s is not exported", e.Namespace, e.Name).then("kubectl get serviceexports -A")
			} else if err != nil {
				return notMember(err)
			}
			c.progress().tell("service %s/%s is no longer exported", e.Namespace, e.Name)
			return nil
		},
	}
	c.namespaceFlag(cmd, &ns)
	return cmd
}
