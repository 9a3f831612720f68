package main

import (
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"seaway.dev/seaway/lab/image"
	"seaway.dev/seaway/lab/layout"
	"seaway.dev/seaway/lab/machine"
	"seaway.dev/seaway/lab/progress"
)

func imageCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "image", Short: "Make container images and put them into the nodes, without a registry",
		Example: "  seaway-lab image build --name localhost/seaway:dev --binary bin/seaway -o seaway.tar\n  seaway-lab image import seaway.tar"}
	c.AddCommand(imageBuildCommand(), imageImportCommand(o), imageAppsCommand(o))
	return c
}

type buildFlags struct {
	name, from, binary, entrypoint, out string
	add                                 []string
}

func imageBuildCommand() *cobra.Command {
	var f buildFlags
	c := &cobra.Command{
		Use: "build", Short: "Make an image tar of a folder or of one static binary", Args: cobra.NoArgs,
		Example: `  seaway-lab image build --name localhost/seaway:dev --binary bin/seaway -o seaway.tar
  seaway-lab image build --name localhost/tool:1 --binary bin/tool --add /bin/busybox:/bin/busybox -o tool.tar
  seaway-lab image build --name localhost/web:1 --from rootfs --entrypoint '["/bin/web","serve"]' -o web.tar`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			im, err := f.image()
			if err != nil {
				return err
			}
			return image.WriteFile(cmd.Context(), im, f.out)
		},
	}
	c.Flags().StringVar(&f.name, "name", "", "the image's name, e.g. localhost/seaway:dev")
	c.Flags().StringVar(&f.from, "from", "", "folder with the root file system")
	c.Flags().StringVar(&f.binary, "binary", "", "one static binary; it becomes /NAME and the entrypoint")
	c.Flags().StringVar(&f.entrypoint, "entrypoint", "", `command as a JSON list, e.g. '["/bin/web","serve"]'`)
	c.Flags().StringArrayVar(&f.add, "add", nil, "SRC:DST, one more file (may be given again)")
	c.Flags().StringVarP(&f.out, "output", "o", "", "file to write")
	_ = c.MarkFlagRequired("name")
	_ = c.MarkFlagRequired("output")
	c.MarkFlagsOneRequired("from", "binary")
	return c
}

func (f buildFlags) image() (image.Image, error) {
	im := image.Image{Ref: f.name, From: f.from, Add: map[string]string{}}
	if f.binary != "" {
		if err := checkStatic(f.binary); err != nil {
			return im, err
		}
		dst := "/" + filepath.Base(f.binary)
		im.Add[dst], im.Entrypoint = f.binary, []string{dst}
	}
	if f.entrypoint != "" {
		if err := json.Unmarshal([]byte(f.entrypoint), &im.Entrypoint); err != nil {
			return im, fmt.Errorf(`--entrypoint %s: %w; write a JSON list such as '["/bin/web","serve"]'`, f.entrypoint, err)
		}
	}
	if len(im.Entrypoint) == 0 {
		return im, errors.New("--from needs --entrypoint")
	}
	for _, a := range f.add {
		src, dst, ok := strings.Cut(a, ":")
		if !ok || !strings.HasPrefix(dst, "/") {
			return im, fmt.Errorf("--add %s: write SRC:DST with an absolute DST", a)
		}
		im.Add[dst] = src
	}
	return im, nil
}

// checkStatic refuses a binary that would not start in an image of its own.
func checkStatic(path string) error {
	b, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("--binary %s: %w", path, err)
	}
	defer b.Close()
	for _, p := range b.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("--binary %s is dynamically linked, and its libraries would be missing; build it with CGO_ENABLED=0, or use --from", path)
		}
	}
	return nil
}

func imageImportCommand(o *options) *cobra.Command {
	var clusters []string
	var as string
	c := &cobra.Command{
		Use: "import TAR...", Short: "Put image tars into every node", Args: cobra.MinimumNArgs(1),
		Example: "  seaway-lab image import seaway.tar\n  seaway-lab image import seaway.tar --cluster c1 --as localhost/seaway:2",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, rec, err := o.load()
			if err != nil {
				return err
			}
			for _, c := range clusters {
				if _, err := rec.Layout.Cluster(c); err != nil {
					return err
				}
			}
			var nodes []machine.Machine
			for _, m := range machine.All(l.Dir, rec) {
				if m.Plan().Role == layout.Node && (len(clusters) == 0 || slices.Contains(clusters, m.Plan().Cluster)) && m.State() == machine.Running {
					nodes = append(nodes, m)
				}
			}
			stages := progress.New(os.Stderr)
			defer stages.Close()
			for _, tar := range args {
				done := stages.Begin("import %s into %d nodes", tar, len(nodes))
				err := image.Import(cmd.Context(), nodes, tar, as)
				if done(err); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().StringSliceVar(&clusters, "cluster", nil, "only into this cluster's nodes (may be given again)")
	c.Flags().StringVar(&as, "as", "", "give the image this name too")
	return c
}

func imageAppsCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "apps", Short: "Build the lab's own images and print their tars", Args: cobra.NoArgs,
		Long:    "They are in every node from the start: " + image.App + " (test application), " + image.CoreDNS + ", " + image.Pause + ".",
		Example: "  seaway-lab image apps",
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := o.lab()
			if err != nil {
				return err
			}
			stages := progress.New(os.Stderr)
			tars, err := l.Images(cmd.Context(), false, stages)
			stages.Close()
			for _, t := range tars {
				fmt.Fprintln(cmd.OutOrStdout(), t)
			}
			return err
		},
	}
}
