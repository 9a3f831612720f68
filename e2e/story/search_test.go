package story

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestKeysAreFoundInEveryForm(t *testing.T) {
	raw := []byte("\x00\x0a0123456789abcdef0123456789abcd")
	key := base64.StdEncoding.EncodeToString(raw)
	needles := forms("c1n1 shop " + key + "\n")
	secret := func(value string) string {
		return fmt.Sprintf(`{"items":[{"kind":"ConfigMap","metadata":{"name":"a","namespace":"n"}},{"kind":"Secret","metadata":{"name":"s","namespace":"n"},"data":{"k":%q}}]}`, value)
	}
	for what, value := range map[string]string{
		"the key itself": key, "its text in base64": base64.StdEncoding.EncodeToString([]byte(key)), "in hexadecimal": fmt.Sprintf("%x", raw),
	} {
		if found, err := searchObjectList(secret(value), needles); err != nil || len(found) != 1 || found[0] != "Secret n/s" {
			t.Errorf("%s: %v %v", what, found, err)
		}
	}
	if found, _ := searchObjectList(secret("something else"), needles); len(found) != 0 {
		t.Errorf("found where it is not: %v", found)
	}
	root := t.TempDir()
	os.MkdirAll(filepath.Join(root, "var/lib/etcd"), 0o755)
	os.WriteFile(filepath.Join(root, "var/lib/etcd/db"), append([]byte("page"), raw...), 0o644)
	os.WriteFile(filepath.Join(root, "var/lib/other"), []byte("nothing"), 0o644)
	if found, n := searchFiles(root, needles); n != 2 || len(found) != 1 || found[0] != "/var/lib/etcd/db" {
		t.Errorf("%v of %d", found, n)
	}
}
