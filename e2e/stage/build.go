package stage

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Build makes the programs that were not given, and names the images by what is in them: another program is another
// image, so a lab that was left up never runs yesterday's code by mistake.
func (s *Stage) Build(ctx context.Context) error {
	bin := filepath.Join(s.Cache, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return fmt.Errorf("cache for programs: %w", err)
	}
	probe := filepath.Join(bin, "probe")
	todo := []struct{ dir, pkg, out string }{{s.Root, "./e2e/probe", probe}}
	if s.Seaway == "" {
		s.Seaway = filepath.Join(bin, "seaway")
		todo = append(todo, struct{ dir, pkg, out string }{s.Root, "./cmd/seaway", s.Seaway})
	}
	if s.Lab == "" {
		s.Lab = filepath.Join(bin, "seaway-lab")
		todo = append(todo, struct{ dir, pkg, out string }{filepath.Join(s.Root, "lab"), "./cmd/seaway-lab", s.Lab})
	}
	for _, t := range todo {
		c := Command{
			Dir: t.dir, Env: []string{"CGO_ENABLED=0"},
			Args: []string{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", t.out, t.pkg},
		}
		if _, _, err := s.Runner.Run(ctx, c); err != nil {
			return fmt.Errorf("build %s: %w", t.pkg, err)
		}
	}
	var err error
	if s.Image == "" {
		if s.Image, err = imageName("seaway", s.Seaway); err != nil {
			return err
		}
	}
	s.Probe, err = imageName("seaway-probe", probe)
	return err
}

// imageName is localhost/NAME:FIRST-OF-HASH.
func imageName(name, program string) (string, error) {
	f, err := os.Open(program)
	if err != nil {
		return "", fmt.Errorf("image of %s: %w", name, err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("image of %s: %w", name, err)
	}
	return fmt.Sprintf("localhost/%s:%x", name, h.Sum(nil)[:6]), nil
}
