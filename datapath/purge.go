package datapath

import (
	"context"
	"errors"
	"fmt"
	"os"

	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/datapath/nft"
)

// Drops returns how many packets each slice's rules have dropped or refused, by slice and rule. A slice that cannot be
// read is left out.
func (k *Kernel) Drops() map[string]map[string]uint64 {
	out := map[string]map[string]uint64{}
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return out
	}
	for _, e := range entries {
		ns, err := netns.Open(k.path(e.Name()))
		if err != nil {
			continue
		}
		if drops, err := nft.Drops(ns); err == nil {
			out[e.Name()] = drops
		}
		_ = ns.Close()
	}
	return out
}

// Purge removes everything of ours: every slice's namespace, and from every pod on the node our link, rules and routes.
// What it cannot remove it names in the error; it can be called again.
func (k *Kernel) Purge(ctx context.Context) error {
	// The pods that are attached, and, by the sweep, those that an earlier life left something in.
	k.mu.Lock()
	k.swept = false
	k.mu.Unlock()
	res, err := k.Apply(ctx, nil, Thorough)
	errs := []error{err}
	for _, p := range res.Problems {
		errs = append(errs, fmt.Errorf("%s: %s", p.Where, p.Message))
	}
	k.pods.Find(ctx, nil) // let go of all namespaces
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	if err := os.Remove(k.dir); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("purge: %w", err)
	}
	return nil
}
