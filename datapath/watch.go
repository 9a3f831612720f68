package datapath

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"

	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/slice/plan"
)

// Watch calls changed whenever the tunnel's device comes to, goes from or changes in a slice's namespace, until ctx
// ends: routes go with the device, and a tunnel that was restarted puts it back.
func (k *Kernel) Watch(ctx context.Context, changed func()) error {
	k.mu.Lock()
	k.changed = changed
	k.mu.Unlock()
	<-ctx.Done()
	k.mu.Lock()
	k.changed = nil
	for name := range k.watches {
		k.unwatch(name)
	}
	k.mu.Unlock()
	k.watchers.Wait()
	return nil
}

// watch begins to watch a slice's namespace, if it is not watched already.
func (k *Kernel) watch(slice string, ns *netns.NS) error {
	w, ok := k.watches[slice]
	if k.changed == nil || ok && w.netns == ns.Inode() {
		return nil
	}
	k.unwatch(slice)
	changed, done, updates := k.changed, make(chan struct{}), make(chan netlink.LinkUpdate, 16)
	fd := vnetns.NsHandle(ns.FD())
	if err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{Namespace: &fd}); err != nil {
		return fmt.Errorf("watch the tunnel's device of slice %s: %w", slice, err)
	}
	k.watches[slice] = watch{ns.Inode(), done}
	k.watchers.Go(func() {
		for u := range updates { // closed by the library after done
			if u.Attrs().Name == plan.TunLink {
				changed()
			}
		}
	})
	return nil
}

// unwatch lets go of a slice's namespace: a socket in it would keep it alive.
func (k *Kernel) unwatch(slice string) {
	if w, ok := k.watches[slice]; ok {
		close(w.done)
		delete(k.watches, slice)
	}
}

// watch is a watched namespace.
type watch struct {
	netns uint64
	done  chan struct{}
}
