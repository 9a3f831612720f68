// Package image makes container images out of files, without a container
// engine, and puts them into nodes, without a registry.
package image

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Image to be made.
type Image struct {
	// Ref is its name, e.g. localhost/lab-app:1.
	Ref string
	// Entrypoint is the command and its fixed arguments.
	Entrypoint []string
	// From is a folder with the whole root file system; optional.
	From string
	// Add are further files, by the absolute path they get in the image.
	Add map[string]string
	// Links are symlinks, by path.
	Links map[string]string
}

// Write makes a docker-archive tar of one layer. The same input gives the same
// bytes: entries are sorted, times are zero, everything belongs to root.
func (im Image) Write(w io.Writer) error {
	if im.Ref == "" || len(im.Entrypoint) == 0 {
		return errors.New("an image needs a name and an entrypoint")
	}
	layer, err := os.CreateTemp("", "seaway-lab-layer-*")
	if err != nil {
		return err
	}
	defer os.Remove(layer.Name())
	defer layer.Close()
	sum := sha256.New()
	size, err := im.writeLayer(io.MultiWriter(layer, sum))
	if err != nil {
		return err
	}
	config, err := im.config(sum)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%x.json", sha256.Sum256(config))
	manifest, err := json.Marshal([]map[string]any{{"Config": name, "RepoTags": []string{Normalize(im.Ref)}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	t := tar.NewWriter(w)
	put := func(name string, size int64, r io.Reader) {
		if err == nil {
			err = t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size, Format: tar.FormatPAX})
		}
		if err == nil {
			_, err = io.Copy(t, r)
		}
	}
	put("manifest.json", int64(len(manifest)), strings.NewReader(string(manifest)))
	put(name, int64(len(config)), strings.NewReader(string(config)))
	put("layer.tar", size, layer)
	return errors.Join(err, t.Close())
}

func (im Image) config(layer hash.Hash) ([]byte, error) {
	return json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config":  map[string]any{"Env": []string{"PATH=/bin:/usr/bin:/sbin:/usr/sbin"}, "Entrypoint": im.Entrypoint, "WorkingDir": "/"},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(layer.Sum(nil))}},
		"history": []map[string]string{{"created_by": "seaway-lab image build"}},
	})
}

// entry of a layer.
type entry struct {
	source string // a file on disk, if any
	header tar.Header
}

func (im Image) writeLayer(w io.Writer) (int64, error) {
	entries, err := im.entries()
	if err != nil {
		return 0, err
	}
	c := &counter{w: w}
	t := tar.NewWriter(c)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		e := entries[name]
		if err := e.write(t); err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
	}
	err = t.Close()
	return c.n, err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

func (e entry) write(t *tar.Writer) error {
	e.header.ModTime, e.header.Format = time.Unix(0, 0), tar.FormatPAX
	if err := t.WriteHeader(&e.header); err != nil {
		return err
	}
	if e.header.Typeflag != tar.TypeReg {
		return nil
	}
	f, err := os.Open(e.source)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(t, f)
	return err
}

// entries collects the folder, the added files, the links, and the directories
// that these need, by path.
func (im Image) entries() (map[string]entry, error) {
	es := map[string]entry{}
	if im.From != "" {
		err := filepath.WalkDir(im.From, func(p string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(im.From, p)
			if err != nil || rel == "." {
				return err
			}
			return addFile(es, p, rel)
		})
		if err != nil {
			return nil, err
		}
	}
	for dst, src := range im.Add {
		// Whoever names a file means the file, not a link to it.
		src, err := filepath.EvalSymlinks(src)
		if err != nil {
			return nil, err
		}
		if err := addFile(es, src, strings.TrimPrefix(path.Clean(dst), "/")); err != nil {
			return nil, err
		}
	}
	for name, target := range im.Links {
		name = strings.TrimPrefix(path.Clean(name), "/")
		es[name] = entry{header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
	}
	for name := range es {
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			if _, ok := es[d]; !ok {
				es[d] = entry{header: tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: 0o755}}
			}
		}
	}
	return es, nil
}

func addFile(es map[string]entry, src, name string) error {
	fi, err := os.Lstat(src)
	if err != nil {
		return err
	}
	h := tar.Header{Name: name, Mode: int64(fi.Mode().Perm())}
	if fi.Mode()&os.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	switch {
	case fi.Mode().IsRegular():
		h.Typeflag, h.Size = tar.TypeReg, fi.Size()
	case fi.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case fi.Mode()&os.ModeSymlink != 0:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = os.Readlink(src); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s is a %s, which cannot be in an image", src, fi.Mode().Type())
	}
	es[name] = entry{source: src, header: h}
	return nil
}

// Normalize spells a name out the way container runtimes do: a bare name gets
// their default registry and every name gets a tag.
func Normalize(ref string) string {
	first, _, slash := strings.Cut(ref, "/")
	if !slash {
		ref = defaultRegistry + "/library/" + ref
	} else if first != "localhost" && !strings.ContainsAny(first, ".:") {
		ref = defaultRegistry + "/" + ref
	}
	if last := ref[strings.LastIndexByte(ref, '/')+1:]; !strings.ContainsAny(last, ":@") {
		ref += ":latest"
	}
	return ref
}

// The name that a runtime puts in front of names without a host. It is never
// contacted: lab images are imported.
const defaultRegistry = "docker" + ".io"

// Refs reads the image names out of a docker-archive tar.
func Refs(file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for t := tar.NewReader(f); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s is no docker-archive tar: it has no manifest.json", file)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w; make one with `seaway-lab image build`", file, err)
		}
		if path.Clean(h.Name) != "manifest.json" {
			continue
		}
		var m []struct{ RepoTags []string }
		if err := json.NewDecoder(t).Decode(&m); err != nil {
			return nil, fmt.Errorf("%s: manifest.json: %w", file, err)
		}
		var refs []string
		for _, im := range m {
			refs = append(refs, im.RepoTags...)
		}
		return refs, nil
	}
}
