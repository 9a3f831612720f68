package ctl

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/hub/credential"
	"seaway.dev/seaway/hub/join"
	"seaway.dev/seaway/hub/token"
	"seaway.dev/seaway/install"
)

type joinOptions struct {
	token    string
	gateways string
	wish     join.Wish
	member   install.MemberOptions
	dry      bool
	atomic   bool
	wait     time.Duration
	noDNS    bool
}

func (c *cli) joinCmd() *cobra.Command {
	var o joinOptions
	cmd := &cobra.Command{
		Use: "join", Short: "Bring this cluster into a fleet", Args: cobra.NoArgs,
		Long: `Bring this cluster into a fleet: redeem the join token, install Seaway's controller and
node agents, and let the cluster's DNS ask Seaway for the slices' names. Connections go out
to the hub and never in. No pod of yours is restarted.

Without --token it applies itself again with the credential that is there: to upgrade, or
to go on where an earlier run stopped.`,
		Example: `  seaway join --token seaway1.eyJ…
  seaway join --token @token.txt --private            # nodes that nobody can dial
  seaway token create paris | ssh paris seaway join --token -
  seaway join --gateways 3                            # or: --gateways role=edge
  seaway join --image registry.example/seaway:1.1     # upgrade`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.parse(cmd); err != nil {
				return err
			}
			return c.join(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.token, "token", "", "join token from `seaway token create`; @FILE reads it from a file, - from standard input")
	f.StringVar(&o.member.Image, "image", c.image(), "`IMAGE` of Seaway, with its tag")
	f.StringVar(&o.gateways, "gateways", "", "how many nodes relay for the cluster, or labels (`K=V`) of those that may (default 2 nodes)")
	f.BoolVar(&o.wish.Private, "private", false, "the nodes can dial out but cannot be dialled")
	f.StringVar(&o.wish.Region, "region", "", "where the cluster runs, as its provider names it")
	f.StringVar(&o.wish.Provider, "provider", "", "who runs it: aws, gcp, azure, onprem, …")
	f.StringVar(&o.member.LogLevel, "log-level", "info", "of Seaway's pods: debug, info, warn, error")
	f.BoolVar(&o.dry, "dry-run", false, "print the objects and change nothing; the token stays good")
	f.BoolVar(&o.atomic, "atomic", true, "when it fails, take back what this run made")
	f.BoolVar(&o.noDNS, "skip-dns", false, "leave the cluster's DNS as it is")
	f.DurationVar(&o.wait, "wait", 3*time.Minute, "how long to wait until everything runs; 0: do not wait")
	return cmd
}

func (o *joinOptions) parse(cmd *cobra.Command) error {
	var err error
	if o.token, err = readArg(o.token, cmd.InOrStdin()); err != nil {
		return usage("--token: %w", err)
	}
	switch o.member.LogLevel {
	case "debug", "info", "warn", "error":
	default:
		return usage("--log-level %q: want debug, info, warn or error", o.member.LogLevel)
	}
	if o.gateways == "" {
		return nil
	}
	if n, err := strconv.Atoi(o.gateways); err == nil {
		if n < 1 || n > 16 {
			return usage("--gateways %d: want 1 to 16 nodes", n)
		}
		o.wish.Gateways = int32(n)
		return nil
	}
	o.wish.Selector, err = pairs("--gateways", o.gateways)
	return err
}

// pairs reads k=v,k=v.
func pairs(flag, text string) (map[string]string, error) {
	out := map[string]string{}
	for _, p := range strings.Split(text, ",") {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, usage("%s %q: want labels as key=value, separated by commas", flag, text)
		}
		out[k] = v
	}
	return out, nil
}

func (c *cli) join(ctx context.Context, o joinOptions) error {
	var tok token.Token
	if o.token != "" {
		var err error
		if tok, err = token.Parse(o.token); err != nil {
			return fail(ExitUsage, "%w", err)
		}
		if err := tok.Check(time.Now()); err != nil {
			return fail(ExitRefused, "%w", err)
		}
		o.member.Cluster = tok.Cluster
	}
	if o.dry {
		if o.member.Cluster == "" {
			return usage("--dry-run needs --token, for the cluster's name")
		}
		return c.printYAML(memberObjects(install.MCS(), install.Member(o.member)))
	}
	t, err := c.connect()
	if err != nil {
		return err
	}
	p := c.progress()
	if err := p.step("you may install here", func(func(string)) (string, error) { return t.mayInstall(ctx) }); err != nil {
		return err
	}
	had, err := t.credential(ctx)
	if err != nil {
		return err
	}
	cred, err := c.redeem(ctx, p, t, tok, had, o.wish)
	if err != nil {
		return err
	}
	o.member.Cluster = cred.Cluster
	done, err := c.installMember(ctx, p, t, cred, o)
	if err != nil {
		err = c.takeBack(ctx, p, t, done, o.atomic, "seaway join", err)
		if had == nil && o.atomic && len(done) > 0 {
			c.sayLeaving(context.WithoutCancel(ctx), p, *cred)
		}
		return err
	}
	p.tell("\nCluster %s is in the fleet. Next, on the hub:\n  seaway status\n  seaway slice create NAME --namespace NAMESPACE", cred.Cluster)
	return nil
}

// memberObjects puts the definitions and the credential where they belong in the order of making: the namespace first.
func memberObjects(crds []*apiextensionsv1.CustomResourceDefinition, member []client.Object, more ...client.Object) []client.Object {
	out := []client.Object{member[0]}
	for _, d := range crds {
		out = append(out, d)
	}
	return append(append(out, more...), member[1:]...)
}

// credential reads what the cluster joined with; nil if it has not joined.
func (t *target) credential(ctx context.Context) (*credential.Credential, error) {
	s, err := t.kube.CoreV1().Secrets(credential.SecretNamespace).Get(ctx, credential.SecretName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the hub credential: %w", err)
	}
	c, err := credential.FromSecret(s)
	if err != nil {
		return nil, err
	}
	return &c, nil
}

// redeem gets the credential: with the token, or the one that is there.
func (c *cli) redeem(ctx context.Context, p *progress, t *target, tok token.Token, had *credential.Credential, w join.Wish) (*credential.Credential, error) {
	switch {
	case tok.ID == "" && had == nil:
		return nil, usage("this cluster has not joined a fleet yet, so it needs --token").then("on the hub: seaway token create NAME")
	case tok.ID == "":
		return had, nil
	case had != nil && (had.Cluster != tok.Cluster || had.Server != tok.Server):
		return nil, fail(ExitRefused, "this cluster is already in the fleet of %s as %s, and the token is for %s as %s", had.Server, had.Cluster, tok.Server, tok.Cluster).
			then("`seaway leave` first; the token stays good until %s", tok.Expires.Local().Format(time.DateTime))
	}
	uid, err := t.uid(ctx)
	if err != nil {
		return nil, err
	}
	var cred credential.Credential
	err = p.step("the hub lets the cluster in as "+tok.Cluster, func(func(string)) (string, error) {
		hub, err := join.Hub(tok)
		if err != nil {
			return "", err
		}
		cred, err = join.Redeem(ctx, hub, tok, uid, w)
		return "", err
	})
	return &cred, err
}

// installMember makes everything on the member, and waits until it runs.
func (c *cli) installMember(ctx context.Context, p *progress, t *target, cred *credential.Credential, o joinOptions) ([]install.Change, error) {
	secret, err := cred.Secret()
	if err != nil {
		return nil, err
	}
	crds, err := t.missing(ctx, install.MCS())
	if err != nil {
		return nil, err
	}
	done, err := c.applyAll(ctx, p, t, "objects of the member", memberObjects(crds, install.Member(o.member), secret))
	if err != nil {
		return done, err
	}
	if o.wait > 0 {
		for _, w := range []struct {
			what, name string
			kind       client.Object
		}{
			{"controller runs", install.ControllerRole, &appsv1.Deployment{}},
			{"tunnel runs on every node", install.TunnelRole, &appsv1.DaemonSet{}},
			{"agent runs on every node", install.AgentRole, &appsv1.DaemonSet{}},
		} {
			err := p.step(w.what, func(say func(string)) (string, error) { return t.rollout(ctx, o.wait, say, w.kind, w.name) })
			if err != nil {
				return done, err
			}
		}
	}
	if !o.noDNS {
		if err := p.step("the cluster's DNS asks Seaway for clusterset.local and slice.local", func(func(string)) (string, error) {
			return t.forwardZones(ctx, zones())
		}); err != nil {
			return done, err
		}
	}
	if o.wait > 0 {
		err = p.step("the hub hears the cluster", func(say func(string)) (string, error) { return "", heard(ctx, *cred, o.wait, say) })
	}
	return done, err
}

// missing returns the definitions that the cluster lacks, and those of them that Seaway brought along earlier.
func (t *target) missing(ctx context.Context, all []*apiextensionsv1.CustomResourceDefinition) ([]*apiextensionsv1.CustomResourceDefinition, error) {
	var out []*apiextensionsv1.CustomResourceDefinition
	for _, d := range all {
		var have apiextensionsv1.CustomResourceDefinition
		err := t.Get(ctx, client.ObjectKeyFromObject(d), &have)
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		}
		if err != nil || have.Labels[install.LabelInstalled] == "true" {
			out = append(out, d)
			continue
		}
		if !serves(&have, "v1beta1") {
			return nil, fail(ExitRefused, "%s is there without version v1beta1", d.Name).
				then("upgrade the MCS-API kinds of this cluster to v0.3 or newer (kubectl apply -k github.com/kubernetes-sigs/mcs-api/config/crd), then run this again")
		}
	}
	return out, nil
}

func serves(d *apiextensionsv1.CustomResourceDefinition, version string) bool {
	for _, v := range d.Spec.Versions {
		if v.Name == version && v.Served {
			return true
		}
	}
	return false
}

// atHub is a client with the member's own credential.
func atHub(cred credential.Credential) (*target, error) {
	s, err := credential.Open(context.Background(), credential.Config{Store: fixed{cred}})
	if err != nil {
		return nil, err
	}
	return reach(s.Config())
}

// fixed is a credential that nobody renews: for a verb that takes seconds.
type fixed struct{ cred credential.Credential }

func (f fixed) Load(context.Context) (credential.Credential, error) { return f.cred, nil }
func (f fixed) Save(context.Context, credential.Credential) error   { return nil }

// heard waits until the hub says that the cluster is Ready.
func heard(ctx context.Context, cred credential.Credential, wait time.Duration, say func(string)) error {
	hub, err := atHub(cred)
	if err != nil {
		return err
	}
	last := "no condition yet"
	err = poll(ctx, wait, time.Second, func() (bool, error) {
		var cl v1alpha1.Cluster
		if err := hub.Get(ctx, client.ObjectKey{Name: cred.Cluster}, &cl); err != nil {
			return false, err
		}
		for _, cond := range cl.Status.Conditions {
			if cond.Type == v1alpha1.ClusterReady {
				last = cond.Reason + ", " + cond.Message
				say(cond.Reason)
				return cond.Status == metav1.ConditionTrue, nil
			}
		}
		return false, nil
	})
	if err != nil && ctx.Err() == nil && explain(err).code == ExitUnreachable {
		return fail(ExitUnreachable, "the hub does not say that the cluster is ready: %s", last).
			then("kubectl -n %s logs deploy/%s", install.Namespace, install.ControllerRole)
	}
	return err
}
