package main

import (
	"slices"

	"github.com/spf13/cobra"

	"seaway.dev/seaway/lab/layout"
)

// completeNames has the shell offer the names of the lab that is up: to each command those that it takes there.
func (o *options) completeNames(root *cobra.Command) {
	at := func(names func(layout.Layout, []string) []string, path ...string) {
		c, _, err := root.Find(path)
		if err != nil {
			panic(err) // the paths are written below
		}
		c.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			args, err := o.passThrough(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			_, rec, err := o.load()
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			left := names(rec.Layout, args)
			if left == nil {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return left, cobra.ShellCompDirectiveNoFileComp
		}
	}
	at(first(clusterNames), "kubectl")
	at(first(clusterNames), "kubeconfig")
	at(first(machineNames), "exec")
	machines, _, _ := root.Find([]string{"machine"})
	for _, c := range machines.Commands() {
		at(others(machineNames), "machine", c.Name())
	}
	for _, c := range []string{"set", "cut", "heal", "clear"} {
		at(ends, "wan", c)
	}
}

func clusterNames(l layout.Layout) []string {
	var out []string
	for _, c := range l.Clusters {
		out = append(out, c.Name)
	}
	return out
}

func machineNames(l layout.Layout) []string {
	var out []string
	for _, m := range l.Machines() {
		out = append(out, m.Name)
	}
	return out
}

// first offers names as the first argument; after that files, as shells do.
func first(names func(layout.Layout) []string) func(layout.Layout, []string) []string {
	return func(l layout.Layout, args []string) []string {
		if len(args) > 0 {
			return nil
		}
		return names(l)
	}
}

// others offers the names that are not there yet.
func others(names func(layout.Layout) []string) func(layout.Layout, []string) []string {
	return func(l layout.Layout, args []string) []string {
		return slices.DeleteFunc(append([]string{}, names(l)...), func(n string) bool { return slices.Contains(args, n) })
	}
}

// ends offers both ends of a WAN path.
func ends(l layout.Layout, args []string) []string {
	if len(args) > 1 {
		return []string{}
	}
	return others(func(l layout.Layout) []string {
		names := append(clusterNames(l), machineNames(l)...)
		if len(args) == 1 {
			names = append(names, "all")
		}
		return names
	})(l, args)
}
