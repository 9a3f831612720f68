package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode)); err != nil {
		t.Fatal(err)
	}
}

func sample(t *testing.T) Image {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "root/etc/x"), "x", 0o600)
	write(t, filepath.Join(dir, "tool"), "tool", 0o755)
	if err := os.Symlink("x", filepath.Join(dir, "root/etc/y")); err != nil {
		t.Fatal(err)
	}
	return Image{Ref: "localhost/a", Entrypoint: []string{"/opt/bin/tool", "-v"}, From: filepath.Join(dir, "root"),
		Add: map[string]string{"/opt/bin/tool": filepath.Join(dir, "tool")}, Links: map[string]string{"/bin": "opt/bin"}}
}

// unpack reads a tar into a list of entries and their contents.
func unpack(t *testing.T, b []byte) (names []string, content map[string][]byte) {
	t.Helper()
	content = map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names, content
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, fmt.Sprintf("%c %04o %d %s%s", h.Typeflag, h.Mode, h.Uid, h.Name, strings.TrimSuffix(" > "+h.Linkname, " > ")))
		content[h.Name], err = io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestArchive(t *testing.T) {
	var b bytes.Buffer
	if err := sample(t).Write(&b); err != nil {
		t.Fatal(err)
	}
	_, files := unpack(t, b.Bytes())
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest[0].RepoTags[0] != "localhost/a:latest" || manifest[0].Config != fmt.Sprintf("%x.json", sha256.Sum256(files[manifest[0].Config])) {
		t.Errorf("%+v", manifest)
	}
	var config struct {
		Config struct{ Entrypoint []string }
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(files[manifest[0].Config], &config); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256(files["layer.tar"])); config.Rootfs.DiffIDs[0] != want || config.Config.Entrypoint[1] != "-v" {
		t.Errorf("%+v, want layer %s", config, want)
	}
	layer, content := unpack(t, files["layer.tar"])
	want := []string{"2 0777 0 bin > opt/bin", "5 0755 0 etc/", "0 0600 0 etc/x", "2 0777 0 etc/y > x", "5 0755 0 opt/", "5 0755 0 opt/bin/", "0 0755 0 opt/bin/tool"}
	if !slices.Equal(layer, want) || string(content["opt/bin/tool"]) != "tool" {
		t.Errorf("layer\n%s", strings.Join(layer, "\n"))
	}
}

func TestSameInputSameBytes(t *testing.T) {
	var sums [2][32]byte
	for i := range sums {
		var b bytes.Buffer
		if err := sample(t).Write(&b); err != nil {
			t.Fatal(err)
		}
		sums[i] = sha256.Sum256(b.Bytes())
	}
	if sums[0] != sums[1] {
		t.Error("the same files gave two different images")
	}
}

func TestNormalize(t *testing.T) {
	for in, want := range map[string]string{
		"localhost/a:1": "localhost/a:1", "a": defaultRegistry + "/library/a:latest", "x/a:2": defaultRegistry + "/x/a:2",
		"reg.example:5000/a": "reg.example:5000/a:latest", "localhost/a@sha256:00": "localhost/a@sha256:00",
	} {
		if got := Normalize(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}

func TestRefs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.tar")
	if err := WriteFile(t.Context(), sample(t), file); err != nil {
		t.Fatal(err)
	}
	if refs, err := Refs(file); err != nil || refs[0] != "localhost/a:latest" {
		t.Error(refs, err)
	}
	write(t, file, "no tar at all", 0o644)
	if _, err := Refs(file); err == nil || !strings.Contains(err.Error(), "seaway-lab image build") {
		t.Error(err)
	}
}

func TestFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	im := sample(t)
	im.Add["/gone"] = filepath.Join(dir, "gone")
	if err := WriteFile(t.Context(), im, filepath.Join(dir, "out.tar")); err == nil {
		t.Error("no error")
	}
	if e, _ := os.ReadDir(dir); len(e) != 0 {
		t.Errorf("left: %v", e)
	}
}

func TestPlantLinksWhatNeverChanges(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root, to give files their owners; run: sudo go test ./image")
	}
	dir := t.TempDir()
	s := Seed{Dir: filepath.Join(dir, "seed")}
	write(t, filepath.Join(s.Dir, "content/blobs/sha256/a"), "blob", 0o444)
	write(t, filepath.Join(s.Dir, "meta/meta.db"), "db", 0o644)
	to := filepath.Join(dir, "node")
	if err := s.Plant(to); err != nil {
		t.Fatal(err)
	}
	same := func(name string) bool {
		a, err1 := os.Stat(filepath.Join(s.Dir, name))
		b, err2 := os.Stat(filepath.Join(to, name))
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		return os.SameFile(a, b)
	}
	if !same("content/blobs/sha256/a") || same("meta/meta.db") {
		t.Error("blobs must be linked, databases copied")
	}
}
