package pod

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// netnsDir is where containerd and CRI-O (and `ip netns`) mount namespaces: a new sandbox is a new file there, before
// the runtime's own API knows of it.
const netnsDir = "/run/netns"

// Watch calls changed whenever a namespace appears in, or goes from, the runtime's folder, until ctx ends. It waits for
// the folder to appear: a fresh node has none before its first pod.
func (f *Finder) Watch(ctx context.Context, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the runtime's namespaces: %w", err)
	}
	defer w.Close()
	dir := filepath.Join(f.cfg.Root, netnsDir)
	// The parent tells of the folder's making; it is quiet otherwise.
	if err := w.Add(filepath.Dir(dir)); err != nil {
		return fmt.Errorf("watch %s: %w", filepath.Dir(dir), err)
	}
	if _, err := os.Stat(dir); err == nil {
		if err := w.Add(dir); err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-w.Errors:
			// A full queue lost events: look at everything.
			f.cfg.Log.Warn("watching the runtime's namespaces", "err", err)
			changed()
		case e := <-w.Events:
			switch {
			case e.Name == dir && e.Has(fsnotify.Create):
				if err := w.Add(dir); err != nil {
					return fmt.Errorf("watch %s: %w", dir, err)
				}
				changed()
			case filepath.Dir(e.Name) == dir && (e.Has(fsnotify.Create) || e.Has(fsnotify.Remove)):
				changed()
			}
		}
	}
}
