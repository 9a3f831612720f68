// Seaway is one binary for everything: the command line, and the roles hub, controller, agent and tunnel that run in
// the clusters. This file turns flags into each role's configuration and does nothing else.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"seaway.dev/seaway/ctl"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	name := "seaway"
	if strings.HasPrefix(filepath.Base(os.Args[0]), "kubectl-") {
		name = "kubectl seaway"
	}
	os.Exit(ctl.Run(ctx, ctl.Config{
		Name: name, Version: version, Out: os.Stdout, Err: os.Stderr, Color: terminal(os.Stderr) && os.Getenv("NO_COLOR") == "",
		Roles: []*cobra.Command{hubCmd(), controllerCmd(), autoscalerCmd(), agentCmd(), tunnelCmd(), drillClientCmd(), drillHoleCmd()},
	}, os.Args[1:]))
}

// terminal tells whether a person reads along.
func terminal(f *os.File) bool {
	i, err := f.Stat()
	return err == nil && i.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}
