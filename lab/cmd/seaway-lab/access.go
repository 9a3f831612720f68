package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"seaway.dev/seaway/lab/machine"
)

func kubectlCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "kubectl CLUSTER ARGS...", Short: "Run kubectl on a cluster", DisableFlagParsing: true,
		Example: "  seaway-lab kubectl c1 get pods -A\n  seaway-lab kubectl hub apply -f app.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			args, err := o.passThrough(args)
			if err != nil || len(args) == 0 || args[0] == "-h" || args[0] == "--help" {
				return errors.Join(err, cmd.Help())
			}
			l, rec, err := o.load()
			if err != nil {
				return err
			}
			if _, err := rec.Layout.Cluster(args[0]); err != nil {
				return err
			}
			argv := append([]string{"kubectl", "--kubeconfig", l.Dir.Kubeconfig(args[0])}, args[1:]...)
			return unix.Exec(filepath.Join(rec.Bin, "kubectl"), argv, os.Environ())
		},
	}
}

// passThrough takes the lab's own leading --state from arguments that are
// otherwise meant for another program.
func (o *options) passThrough(args []string) ([]string, error) {
	if len(args) == 0 {
		return args, nil
	}
	if v, ok := strings.CutPrefix(args[0], "--state="); ok {
		o.state = v
		return args[1:], nil
	}
	if args[0] == "--state" {
		if len(args) < 2 {
			return nil, errors.New("--state needs a directory")
		}
		o.state = args[1]
		return args[2:], nil
	}
	return args, nil
}

func kubeconfigCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "kubeconfig CLUSTER", Short: "Print the path of a cluster's kubeconfig", Args: cobra.ExactArgs(1),
		Example: "  export KUBECONFIG=$(seaway-lab kubeconfig c1)",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, rec, err := o.load()
			if err != nil {
				return err
			}
			if _, err := rec.Layout.Cluster(args[0]); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), l.Dir.Kubeconfig(args[0]))
			return nil
		},
	}
}

func execCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "exec MACHINE -- COMMAND ARGS...", Short: "Run a command inside a machine", Args: cobra.MinimumNArgs(2),
		Long:    "The command is in the machine's network, mount, pid, uts and ipc namespaces. /tmp is the host's, for passing files.",
		Example: "  seaway-lab exec c1n1 -- ctr -n k8s.io containers ls\n  seaway-lab exec c1n1 -- tail /var/log/lab/kubelet.log\n  seaway-lab exec c1n1 -- bash",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, rec, err := o.load()
			if err != nil {
				return err
			}
			m, err := machine.Find(l.Dir, rec, args[0])
			if err != nil {
				return err
			}
			c, err := m.Command(cmd.Context(), args[1:]...)
			if err != nil {
				return err
			}
			path, err := exec.LookPath("nsenter")
			if err != nil {
				return err
			}
			return unix.Exec(path, c.Args, c.Env)
		},
	}
}
