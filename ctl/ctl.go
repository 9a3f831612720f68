// Package ctl is the command line: one verb a file. Each verb says what it does while it does it, ends with what to
// do next, and, when it fails, with how to mend it. Standard output has the answer and nothing else; progress goes to
// standard error.
package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/kube"
)

// Exit codes.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2 // wrong flags, arguments or values
	ExitUnreachable = 3 // an API server does not answer
	ExitRefused     = 4 // it answers no: rights, a used token, a name taken
	ExitPartial     = 5 // done, but something was left behind
)

// Config is what the command line needs from its process.
type Config struct {
	Name    string // how it was called: seaway, or kubectl seaway
	Version string
	Out     io.Writer
	Err     io.Writer
	Color   bool // Err is a terminal
	Roles   []*cobra.Command
}

// cli is what the verbs share.
type cli struct {
	Config
	kubeconfig string
	context    string
	output     string
}

// Run executes a command line and returns the exit code.
func Run(ctx context.Context, conf Config, args []string) int {
	c := &cli{Config: conf}
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	f := explain(err)
	fmt.Fprintf(conf.Err, "error: %s\n", f.text)
	if f.next != "" {
		fmt.Fprintf(conf.Err, "  next: %s\n", strings.ReplaceAll(f.next, "\n", "\n        "))
	}
	return f.code
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "seaway",
		Short: "Make many Kubernetes clusters one place for an application",
		Long: `Seaway makes many Kubernetes clusters one place for an application: a slice is the
application's own encrypted network across clusters, without restarting a pod or
replacing the CNI.`,
		Example: `  seaway install hub                          # once, on any cluster
  seaway token create paris                   # on the hub, for each cluster
  seaway join --token seaway1.…               # on that cluster
  seaway slice create pay --namespace pay     # on the hub
  seaway export web -n pay                    # on the cluster that has the service
  seaway status`,
		SilenceUsage: true, SilenceErrors: true, Version: c.Version,
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	if c.Name != "" {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: c.Name} // what usage lines begin with
	}
	root.SetOut(c.Out)
	root.SetErr(c.Err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%v", err).then("%s --help", cmd.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig `FILE` of the cluster to speak with (default: what kubectl uses)")
	f.StringVar(&c.context, "context", "", "`NAME` of the context in it (default: the current one)")
	root.AddCommand(c.installCmd(), c.uninstallCmd(), c.tokenCmd(), c.joinCmd(), c.leaveCmd(), c.clusterCmd(), c.nodeCmd(),
		c.sliceCmd(), c.exportCmd(), c.unexportCmd(), c.dnsCmd(), c.statusCmd(), c.drillCmd(), c.explainCmd(), c.simCmd(), c.versionCmd())
	for _, r := range c.Roles {
		r.Hidden = true
		root.AddCommand(r)
	}
	return root
}

func (c *cli) versionCmd() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Say which version this is", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { fmt.Fprintln(c.Out, c.Version); return nil }}
}

// target is the cluster that a verb speaks with.
type target struct {
	rest *rest.Config
	kube kubernetes.Interface
	client.Client
}

func (c *cli) connect() (*target, error) {
	rc, err := kube.Config(c.kubeconfig, c.context)
	if err != nil {
		return nil, usage("%v", err)
	}
	return reach(rc)
}

func reach(rc *rest.Config) (*target, error) {
	rc = rest.CopyConfig(rc)
	rc.QPS, rc.Burst, rc.UserAgent = 100, 200, "seaway-cli"
	rc.WarningHandler = rest.NoWarnings{}
	k, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", rc.Host, err)
	}
	cl, err := client.New(rc, client.Options{Scheme: kube.Scheme()})
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", rc.Host, err)
	}
	return &target{rest: rc, kube: k, Client: cl}, nil
}

// failure is an error with its mend and its exit code.
type failure struct {
	text string
	next string
	code int
	err  error
}

// Error implements error.
func (f *failure) Error() string { return f.text }

// Unwrap implements errors.Unwrap.
func (f *failure) Unwrap() error { return f.err }

func (f *failure) then(format string, args ...any) *failure {
	f.next = fmt.Sprintf(format, args...)
	return f
}

func fail(code int, format string, args ...any) *failure {
	err := fmt.Errorf(format, args...)
	return &failure{text: err.Error(), code: code, err: errors.Unwrap(err)}
}

func usage(format string, args ...any) *failure { return fail(ExitUsage, format, args...) }

// readArg reads a value that may be given as a file ("@FILE") or on standard input ("-"), so that secrets need not
// stand on the command line.
func readArg(v string, in io.Reader) (string, error) {
	switch {
	case v == "-":
		b, err := io.ReadAll(io.LimitReader(in, 1<<20))
		return strings.TrimSpace(string(b)), err
	case strings.HasPrefix(v, "@"):
		b, err := os.ReadFile(v[1:])
		return strings.TrimSpace(string(b)), err
	}
	return v, nil
}
