package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"

	"seaway.dev/seaway/lab/machine"
)

// Import puts a tar into nodes, all at the same time. With as, the one image in
// it gets this name too.
func Import(ctx context.Context, nodes []machine.Machine, file, as string) error {
	refs, err := Refs(file)
	if err != nil {
		return err
	}
	if as != "" && len(refs) != 1 {
		return fmt.Errorf("%s holds %d images (%s); a new name needs exactly one", file, len(refs), strings.Join(refs, ", "))
	}
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			if err := importOne(ctx, n, file, refs, as); err != nil {
				errs[i] = fmt.Errorf("%s: %w", n.Plan().Name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func importOne(ctx context.Context, n machine.Machine, file string, refs []string, as string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd, err := n.Command(ctx, "ctr", "-n", "k8s.io", "images", "import", "-")
	if err != nil {
		return err
	}
	cmd.Stdin = f
	if err := run(cmd); err != nil {
		return err
	}
	if as == "" {
		return nil
	}
	cmd, err = n.Command(ctx, "ctr", "-n", "k8s.io", "images", "tag", "--force", Normalize(refs[0]), Normalize(as))
	if err != nil {
		return err
	}
	return run(cmd)
}

func run(cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args[max(0, len(cmd.Args)-4):], " "), err, strings.TrimSpace(out.String()))
	}
	return nil
}
