package ctl

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/hub/credential"
	"seaway.dev/seaway/hub/place"
	"seaway.dev/seaway/hub/token"
)

func (c *cli) tokenCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Make, list and revoke join tokens (on the hub)"}
	cmd.AddCommand(c.tokenCreateCmd(), c.tokenListCmd(), c.tokenRevokeCmd())
	return cmd
}

// tokenOptions are what the token's maker says of the cluster that is to join.
type tokenOptions struct {
	cluster, region, provider, server string
	private, rejoin                   bool
	ttl                               time.Duration
}

func (c *cli) tokenCreateCmd() *cobra.Command {
	var o tokenOptions
	cmd := &cobra.Command{
		Use: "create CLUSTER", Short: "Make a token with which one cluster can join, once", Args: cobra.ExactArgs(1),
		Long: `Make a token with which one cluster can join the fleet, once, under the given name. The
token is printed on standard output and kept nowhere. It is a secret until it is used.`,
		Example: `  seaway token create paris
  seaway token create edge-7 --private --region eu-west-3 --ttl 24h
  seaway token create paris --server https://hub.example:6443   # as paris reaches the hub
  seaway token create paris --rejoin                            # it was away for more than a month`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.cluster = args[0]
			if err := o.check(); err != nil {
				return err
			}
			t, err := c.connect()
			if err != nil {
				return err
			}
			tok, err := c.createToken(cmd.Context(), t, o)
			if err != nil {
				return err
			}
			fmt.Fprintln(c.Out, tok)
			p := c.progress()
			p.tell("\nGood once, until %s. On cluster %s run:\n  seaway join --token %s…", tok.Expires.Local().Format(time.DateTime), o.cluster, tok.String()[:16])
			if loopback(tok.Server) {
				p.tell("warning: %s is this machine itself; other machines will not reach it. Name the address they use with --server.", tok.Server)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.DurationVar(&o.ttl, "ttl", time.Hour, "how long the token can be used, 10m to 720h")
	f.BoolVar(&o.private, "private", false, "the cluster's nodes can dial out but cannot be dialled")
	f.StringVar(&o.region, "region", "", "where the cluster runs, as its provider names it")
	f.StringVar(&o.provider, "provider", "", "who runs it: aws, gcp, azure, onprem, …")
	f.BoolVar(&o.rejoin, "rejoin", false, "for a cluster that is a member already and lost its credential")
	f.StringVar(&o.server, "server", "", "`URL` of the hub's API server as the cluster reaches it (default: as you reach it)")
	return cmd
}

func (o tokenOptions) check() error {
	if err := place.CheckCluster(o.cluster); err != nil {
		return usage("%w", err)
	}
	if o.ttl < 10*time.Minute || o.ttl > 720*time.Hour {
		return usage("--ttl %s: want 10m to 720h (Kubernetes makes no shorter tokens; revoke one with `seaway token revoke ID`)", o.ttl)
	}
	if u, err := url.Parse(o.server); o.server != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		return usage("--server %q: want an https URL, like https://hub.example:6443", o.server)
	}
	return nil
}

// createToken makes the token's account, ConfigMap and rights on the hub.
func (c *cli) createToken(ctx context.Context, t *target, o tokenOptions) (token.Token, error) {
	server, ca, err := t.endpoint(o.server)
	if err != nil {
		return token.Token{}, err
	}
	if err := t.mayJoin(ctx, o); err != nil {
		return token.Token{}, err
	}
	b := make([]byte, 10)
	_, _ = rand.Read(b)
	id := strings.ToLower(base32.StdEncoding.EncodeToString(b))
	expires := time.Now().Add(o.ttl).UTC().Truncate(time.Second)
	no := false
	sa := &corev1.ServiceAccount{AutomountServiceAccountToken: &no, ObjectMeta: metav1.ObjectMeta{
		Namespace: place.Joins, Name: id, Labels: place.Labels("join", o.cluster), Annotations: map[string]string{
			place.AnnotationExpires: expires.Format(time.RFC3339), place.AnnotationServer: server,
			place.AnnotationPrivate: strconv.FormatBool(o.private), place.AnnotationRegion: o.region, place.AnnotationProvider: o.provider,
		}}}
	if err := t.Create(ctx, sa); err != nil {
		if isNoNamespace(err) {
			return token.Token{}, fail(ExitRefused, "%s is no hub of Seaway", t.rest.Host).
				then("make it one with `seaway install hub`, or name the hub with --kubeconfig or --context")
		}
		return token.Token{}, fmt.Errorf("make the token's account: %w", err)
	}
	for _, obj := range place.ForJoin(id, o.cluster) {
		if err := t.Create(ctx, obj); err != nil {
			_ = t.Delete(context.WithoutCancel(ctx), sa) // the hub removes the rest
			return token.Token{}, fmt.Errorf("make %T for the token: %w", obj, err)
		}
	}
	bearer, err := credential.Request(ctx, t.kube, place.Joins, id, o.ttl)
	if err != nil {
		_ = t.Delete(context.WithoutCancel(ctx), sa)
		return token.Token{}, err
	}
	if e := bearer.Expires().UTC().Truncate(time.Second); e.Before(expires) {
		expires = e // the API server grants less than was asked for
	}
	tok := token.Token{Server: server, CA: ca, ID: id, Cluster: o.cluster, Bearer: string(bearer.Text), Expires: expires}
	if _, err := token.Parse(tok.String()); err != nil {
		_ = t.Delete(context.WithoutCancel(ctx), sa)
		return token.Token{}, fmt.Errorf("the kubeconfig does not make a token: %w", err)
	}
	return tok, nil
}

// mayJoin refuses a token for a name that is taken, before somebody carries it to a cluster in vain.
func (t *target) mayJoin(ctx context.Context, o tokenOptions) error {
	var cl v1alpha1.Cluster
	err := t.Get(ctx, client.ObjectKey{Name: o.cluster}, &cl)
	switch {
	case meta.IsNoMatchError(err):
		return fail(ExitRefused, "%s is no hub of Seaway", t.rest.Host).
			then("make it one with `seaway install hub`, or name the hub with --kubeconfig or --context")
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	case cl.DeletionTimestamp != nil:
		return fail(ExitRefused, "cluster %s is being removed from the fleet", o.cluster).then("run this again when `seaway cluster list` no longer shows it")
	case cl.Annotations[place.AnnotationUID] != "" && !o.rejoin:
		return fail(ExitRefused, "%s is a member of the fleet already", o.cluster).
			then("choose another name; or, if that very cluster lost its credential: seaway token create %s --rejoin", o.cluster)
	}
	return nil
}

// endpoint is where and how members reach the hub: as this kubeconfig does, unless told otherwise.
func (t *target) endpoint(server string) (string, []byte, error) {
	if server == "" {
		server = t.rest.Host
	}
	ca := t.rest.CAData
	if len(ca) == 0 && t.rest.CAFile != "" {
		b, err := os.ReadFile(t.rest.CAFile)
		if err != nil {
			return "", nil, fmt.Errorf("read the hub's certificate authority: %w", err)
		}
		ca = b
	}
	if t.rest.Insecure {
		return "", nil, usage("this context does not check the hub's certificate (insecure-skip-tls-verify), and members must").
			then("use a kubeconfig with certificate-authority-data")
	}
	return strings.TrimRight(server, "/"), ca, nil
}

func loopback(server string) bool {
	u, err := url.Parse(server)
	if err != nil {
		return false
	}
	a, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && a.IsLoopback()
}

func (c *cli) tokenListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the join tokens that are not used up", Args: cobra.NoArgs,
		Example: "  seaway token list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			var list corev1.ServiceAccountList
			if err := t.List(cmd.Context(), &list, client.InNamespace(place.Joins), client.MatchingLabels{place.LabelComponent: "join"}); err != nil {
				return err
			}
			w := tabwriter.NewWriter(c.Out, 0, 8, 3, ' ', 0)
			fmt.Fprintln(w, "ID\tCLUSTER\tSTATE\tEXPIRES")
			for _, sa := range list.Items {
				state := "unused"
				exp, _ := time.Parse(time.RFC3339, sa.Annotations[place.AnnotationExpires])
				if sa.Annotations[place.AnnotationClaimed] != "" {
					state = "being used"
				} else if time.Now().After(exp) {
					state = "expired"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", sa.Name, sa.Labels[place.LabelCluster], state, exp.Local().Format(time.DateTime))
			}
			return w.Flush()
		},
	}
}

func (c *cli) tokenRevokeCmd() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID…", Short: "Make join tokens useless at once", Args: cobra.MinimumNArgs(1),
		Example: "  seaway token list\n  seaway token revoke mzxw6ytboi",
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := c.connect()
			if err != nil {
				return err
			}
			for _, id := range args {
				sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: place.Joins, Name: id}}
				if err := t.Delete(cmd.Context(), sa); err != nil {
					if client.IgnoreNotFound(err) == nil {
						return fail(ExitFailed, "there is no join token %s", id).then("seaway token list")
					}
					return err
				}
				for _, o := range place.ForJoin(id, "") {
					if err := t.Delete(cmd.Context(), o); client.IgnoreNotFound(err) != nil {
						return err
					}
				}
				c.progress().tell("revoked %s", id)
			}
			return nil
		},
	}
}
