package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"seaway.dev/seaway/lab/binary"
)

// Names of the lab's own images. They are in every node from the start.
const (
	Pause   = "localhost/pause:1"
	CoreDNS = "localhost/coredns:1"
	App     = "localhost/lab-app:1"
	Metrics = "localhost/metrics-server:1"
)

const busybox = "/bin/busybox"

// AppImage is the test application with busybox around it.
func AppImage(bin string) (Image, error) {
	out, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return Image{}, fmt.Errorf("%s: %w; run `seaway-lab setup`", busybox, err)
	}
	im := Image{Ref: App, Entrypoint: []string{"/bin/lab-app"}, Links: map[string]string{},
		Add: map[string]string{"/bin/lab-app": filepath.Join(bin, "lab-app"), "/bin/busybox": busybox}}
	for applet := range strings.FieldsSeq(string(out)) {
		if applet != "busybox" {
			im.Links["/bin/"+applet] = "busybox"
		}
	}
	im.Links["/sbin"], im.Links["/usr/bin"] = "bin", "../bin"
	return im, nil
}

// PauseImage holds the process that keeps a pod's namespaces.
func PauseImage(bin string) Image {
	return Image{Ref: Pause, Entrypoint: []string{"/pause"}, Add: map[string]string{"/pause": filepath.Join(bin, "lab-app")}}
}

// CoreDNSImage holds CoreDNS.
func CoreDNSImage(bin string) Image {
	return Image{Ref: CoreDNS, Entrypoint: []string{"/coredns"}, Add: map[string]string{"/coredns": filepath.Join(bin, "coredns")}}
}

// MetricsImage holds metrics-server.
func MetricsImage(bin string) Image {
	return Image{Ref: Metrics, Entrypoint: []string{"/metrics-server"}, Add: map[string]string{"/metrics-server": filepath.Join(bin, "metrics-server")}}
}

// Store writes an image's tar into the cache unless it is there; key says what
// it was made from.
func Store(ctx context.Context, cache binary.Cache, im Image, key string) (string, error) {
	name := strings.NewReplacer("localhost/", "", ":", "-").Replace(im.Ref)
	file := cache.Path("images", name+"-"+key+".tar")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	return file, WriteFile(ctx, im, file)
}

// WriteFile writes an image's tar; a failure leaves no half of one behind.
func WriteFile(ctx context.Context, im Image, file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".image-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = im.Write(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	if err := os.Chmod(f.Name(), 0o644); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
