package stage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Debian unpacks a package of Debian's into the cache, without installing it (no server of it starts here), and returns
// the folder.
func (s *Stage) Debian(ctx context.Context, pkg string) (string, error) {
	dir := filepath.Join(s.Cache, "debian", pkg)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	work, err := os.MkdirTemp(filepath.Dir(s.Cache), "debian-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	get := Command{Dir: work, Args: []string{"apt-get", "download", "-qq", pkg}}
	if _, _, err := s.Runner.Run(ctx, get); err != nil {
		if _, err := s.run(ctx, "apt-get", "update", "-qq"); err != nil {
			return "", fmt.Errorf("package %s: %w", pkg, err)
		}
		if _, _, err := s.Runner.Run(ctx, get); err != nil {
			return "", fmt.Errorf("package %s: %w", pkg, err)
		}
	}
	debs, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("package %s: %d files came (%v)", pkg, len(debs), err)
	}
	if _, err := s.run(ctx, "dpkg-deb", "-x", debs[0], filepath.Join(work, "root")); err != nil {
		return "", fmt.Errorf("package %s: %w", pkg, err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	return dir, os.Rename(filepath.Join(work, "root"), dir)
}
