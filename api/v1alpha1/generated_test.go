package v1alpha1

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestGeneratedFilesAreCurrent makes the CRDs again and compares them with what is in the tree.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the generator")
	}
	dir := t.TempDir()
	cmd := exec.Command("go", "tool", "-modfile=../../tools/go.mod", "controller-gen", "object:headerFile=/dev/null",
		"crd:crdVersions=v1,headerFile=/dev/null", "paths=.", "output:crd:artifacts:config="+dir, "output:object:dir="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("controller-gen: %v\n%s", err, out)
	}
	for fresh, kept := range map[string]string{
		"seaway.dev_clusters.yaml":    "../../deploy/crds/seaway.dev_clusters.yaml",
		"seaway.dev_slices.yaml":      "../../deploy/crds/seaway.dev_slices.yaml",
		"seaway.dev_autoscalers.yaml": "../../deploy/crds/seaway.dev_autoscalers.yaml",
		"zz_generated.deepcopy.go":    "zz_generated.deepcopy.go",
	} {
		want, err := os.ReadFile(filepath.Join(dir, fresh))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(kept)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the types say (%v): make generate", kept, err)
		}
	}
}
