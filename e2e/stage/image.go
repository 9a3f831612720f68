package stage

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// busyboxApplets are what an image made by [Stage.RootImage] has besides its programs.
var busyboxApplets = []string{"sh", "cat", "chmod", "cp", "env", "ip", "kill", "ls", "mkdir", "mv", "ps", "rm", "sleep", "test", "touch", "true"}

// RootImage says what is in an image: programs and folders of this machine, at the same paths as here, with the
// libraries that they are linked against, and a shell.
type RootImage struct {
	Name     string            // seaway-postgres; the tag is made of the contents
	Programs []string          // dynamically linked ones too
	Trees    []string          // folders, as they are
	Skip     []string          // files of those, by their base name
	Files    map[string]string // path in the image → text
	Add      map[string]string // path in the image → file here
	Only     []string          // the clusters whose nodes need it; none: all
}

// EnsureImage makes an image of im's files, puts it into every node that has not got it, and returns its name.
func (s *Stage) EnsureImage(ctx context.Context, im RootImage) (string, error) {
	root := filepath.Join(s.Cache, "rootfs", im.Name)
	if err := os.RemoveAll(root); err != nil {
		return "", err
	}
	sum := sha256.New()
	if err := s.fill(ctx, root, im, sum); err != nil {
		return "", fmt.Errorf("image %s: %w", im.Name, err)
	}
	name := fmt.Sprintf("localhost/%s:%x", im.Name, sum.Sum(nil)[:6])
	l, err := s.Layout(ctx)
	if err != nil {
		return "", err
	}
	imports := []string{"image", "import"}
	if len(im.Only) > 0 {
		l.Clusters = slices.DeleteFunc(l.Clusters, func(c Cluster) bool { return !slices.Contains(im.Only, c.Name) })
	}
	for _, c := range im.Only {
		imports = append(imports, "--cluster", c)
	}
	if s.haveImage(ctx, l, name) {
		return name, nil
	}
	tar := filepath.Join(s.Cache, im.Name+".tar")
	defer os.Remove(tar)
	if _, err := s.Labctl(ctx, "image", "build", "--name", name, "--from", root, "--entrypoint", `["/bin/sh"]`, "-o", tar); err != nil {
		return "", fmt.Errorf("image %s: %w", name, err)
	}
	if _, err := s.Labctl(ctx, append(imports, tar)...); err != nil {
		return "", fmt.Errorf("image %s: %w", name, err)
	}
	return name, nil
}

// fill copies everything into a folder and writes the contents' hash.
func (s *Stage) fill(ctx context.Context, root string, im RootImage, sum io.Writer) error {
	put := func(from, to string) error { return copyFile(from, filepath.Join(root, to), to, sum) }
	if err := put("/bin/busybox", "/bin/busybox"); err != nil {
		return fmt.Errorf("%w; install busybox-static", err)
	}
	for _, a := range busyboxApplets {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", a)); err != nil {
			return err
		}
	}
	files := slices.Clone(im.Programs)
	for _, tree := range im.Trees {
		err := filepath.WalkDir(tree, func(p string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() && !slices.Contains(im.Skip, d.Name()) {
				files = append(files, p)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	programs := slices.Clone(files)
	for _, to := range sortedKeys(im.Add) {
		programs = append(programs, im.Add[to])
	}
	libs, err := s.libraries(ctx, programs)
	if err != nil {
		return err
	}
	for _, f := range append(files, libs...) {
		if err := put(f, f); err != nil {
			return err
		}
	}
	for _, to := range sortedKeys(im.Add) {
		if err := put(im.Add[to], to); err != nil {
			return err
		}
	}
	for _, to := range sortedKeys(im.Files) {
		fmt.Fprintln(sum, to, im.Files[to])
		path := filepath.Join(root, to)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(im.Files[to]), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// libraries lists the shared libraries that programs and plug-ins are linked against, and the loader.
func (s *Stage) libraries(ctx context.Context, files []string) ([]string, error) {
	linked := slices.DeleteFunc(slices.Clone(files), func(f string) bool {
		return !strings.Contains(f, "/bin/") && !strings.HasSuffix(f, ".so")
	})
	if len(linked) == 0 {
		return nil, nil
	}
	out, _, err := s.Runner.Run(ctx, Command{Args: append([]string{"ldd"}, linked...)})
	if err != nil && !strings.Contains(out, "=>") && !strings.Contains(err.Error(), "not a dynamic executable") {
		return nil, err
	}
	return parseLDD(out), nil
}

// parseLDD finds the paths in what ldd prints; one that is missing is not listed, and the program will say so.
func parseLDD(out string) []string {
	var libs []string
	for line := range strings.Lines(out) {
		for _, f := range strings.Fields(line) {
			if strings.HasPrefix(f, "/") && !strings.HasSuffix(f, ":") && !slices.Contains(libs, f) {
				libs = append(libs, f)
			}
		}
	}
	slices.Sort(libs)
	return libs
}

func copyFile(from, to, name string, sum io.Writer) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, fi.Mode().Perm())
	if err != nil {
		return err
	}
	fmt.Fprintln(sum, name)
	if _, err := io.Copy(io.MultiWriter(out, sum), in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// Program builds one of this tree's programs, statically, and returns where it lies.
func (s *Stage) Program(ctx context.Context, pkg, name string) (string, error) {
	out := filepath.Join(s.Cache, "bin", name)
	c := Command{Dir: s.Root, Env: []string{"CGO_ENABLED=0"},
		Args: []string{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, pkg}}
	if _, _, err := s.Runner.Run(ctx, c); err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	return out, nil
}
