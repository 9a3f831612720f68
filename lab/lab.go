// Package lab runs real multi-cluster Kubernetes on one machine, without a
// container engine or a registry: machines are namespaces, the WAN between the
// clusters is a router that can delay, lose, limit and cut.
package lab

import (
	"embed"
	"io/fs"

	"seaway.dev/seaway/lab/binary"
	"seaway.dev/seaway/lab/state"
)

//go:embed app
var sources embed.FS

// Lab is a lab on this host, up or not.
type Lab struct {
	Dir   state.Dir
	Cache binary.Cache
}

// Open a lab by its state directory; nothing is read or made yet.
func Open(dir string) (Lab, error) {
	c, err := binary.DefaultCache()
	return Lab{Dir: state.Dir(dir), Cache: c}, err
}

func appProgram() binary.Program {
	src, err := fs.Sub(sources, "app")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return binary.App(src)
}
