package netns

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"strings"
)

// Sysctl is a kernel parameter of a namespace: a name below /proc/sys with slashes, and its value.
type Sysctl struct{ Name, Value string }

// SetSysctls gives the namespace's parameters their values and returns how many were different. Parameters that the
// kernel does not have (IPv6 switched off at boot) are passed over.
func (n *NS) SetSysctls(want []Sysctl) (ops int, err error) {
	err = n.Do(func() error {
		for _, s := range want {
			if !strings.HasPrefix(s.Name, "net/") {
				return fmt.Errorf("parameter %s does not belong to a network namespace: it would change the host", s.Name)
			}
			file := path.Join("/proc/sys", s.Name)
			is, err := os.ReadFile(file)
			if os.IsNotExist(err) {
				continue
			}
			if err != nil {
				return fmt.Errorf("read parameter %s: %w", s.Name, err)
			}
			if string(bytes.TrimSpace(is)) == s.Value {
				continue
			}
			if err := os.WriteFile(file, []byte(s.Value), 0o644); err != nil {
				return fmt.Errorf("set parameter %s to %s: %w", s.Name, s.Value, err)
			}
			ops++
		}
		return nil
	})
	return ops, err
}
