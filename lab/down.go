package lab

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"seaway.dev/seaway/lab/cgroup"
	"seaway.dev/seaway/lab/host"
	"seaway.dev/seaway/lab/machine"
	"seaway.dev/seaway/lab/state"
	"seaway.dev/seaway/lab/underlay"
	"seaway.dev/seaway/lab/wan"
)

// Down removes everything that Up made, however far that came. It goes on after
// an error, so that as much as possible is gone; running it again is harmless.
func (l Lab) Down() error {
	if err := host.CheckRoot(); err != nil {
		return err
	}
	if other, ok := l.Dir.Other(); ok {
		return fmt.Errorf("the lab that is up on this host has its state in %[1]s, not in %[2]s; remove it with `seaway-lab down --state %[1]s`", other, l.Dir)
	}
	unlock, err := l.Dir.Lock("seaway-lab down")
	if err != nil {
		return err
	}
	defer unlock()
	rec, err := l.Dir.Load()
	if errors.Is(err, state.ErrNone) {
		// Nothing recorded, but names of ours may be left by a lab whose state is lost.
		return l.sweep()
	}
	if err != nil {
		return errors.Join(err, l.sweep(), l.erase())
	}
	rec.Phase = state.Stopping
	errs := []error{l.Dir.Save(rec), wan.Stop(l.Dir)}
	errs = append(errs, powerOff(machine.All(l.Dir, rec))...)
	errs = append(errs, l.sweep(), host.RestoreSysctls(rec.Sysctls))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w\nrun `seaway-lab down` again; the state is still in %s", err, l.Dir)
	}
	return l.erase()
}

func powerOff(ms []machine.Machine) []error {
	errs := make([]error, len(ms))
	var wg sync.WaitGroup
	for i, m := range ms {
		wg.Go(func() { errs[i] = m.PowerOff() })
	}
	wg.Wait()
	return errs
}

// sweep removes what carries the lab's names.
func (l Lab) sweep() error {
	cgroup.KillAll()
	return errors.Join(underlay.Down(), cgroup.RemoveAll(10*time.Second))
}

// erase removes the state; the lock file stays, others may be waiting for it.
func (l Lab) erase() error {
	entries, err := os.ReadDir(string(l.Dir))
	errs := []error{err}
	for _, e := range entries {
		if e.Name() != "lock" && e.Name() != "lab.json" {
			errs = append(errs, os.RemoveAll(l.Dir.Path(e.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// Last, so that a Down that was cut short is taken up again.
	return errors.Join(l.Dir.Remove("lab.json"), l.Dir.Release())
}
