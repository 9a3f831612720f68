package lab

import (
	"context"
	"path/filepath"

	"seaway.dev/seaway/lab/binary"
	"seaway.dev/seaway/lab/host"
	"seaway.dev/seaway/lab/image"
	"seaway.dev/seaway/lab/progress"
)

// Prepared is what must exist before a lab can start.
type Prepared struct {
	// Bin is the folder of Kubernetes' binaries.
	Bin string
	// Seed is the containerd root that every node begins with.
	Seed image.Seed
	// Tars are the lab's own images.
	Tars []string
}

// Prepare checks the host, installs packages and builds what is not built yet.
// Everything it makes is in the cache, so a second time it is instant.
func (l Lab) Prepare(ctx context.Context, metrics bool, stages *progress.Stages) (Prepared, error) {
	var p Prepared
	if err := host.CheckRoot(); err != nil {
		return p, err
	}
	if err := l.checkDisk(); err != nil {
		return p, err
	}
	if pkgs := host.MissingPackages(); len(pkgs) > 0 {
		done := stages.Begin("install packages: %v", pkgs)
		err := host.Install(ctx, pkgs)
		if done(err); err != nil {
			return p, err
		}
	}
	if err := host.CheckKernel(); err != nil {
		return p, err
	}
	var err error
	if p.Bin, err = l.Cache.Build(ctx, binary.Kube(), stages); err != nil {
		return p, err
	}
	if p.Tars, err = l.Images(ctx, metrics, stages); err != nil {
		return p, err
	}
	if p.Seed, err = image.SeedFor(string(l.Cache), p.Tars); err != nil || p.Seed.Exists() {
		return p, err
	}
	done := stages.Begin("prepare the nodes' images")
	err = p.Seed.Make(ctx, p.Tars)
	done(err)
	return p, err
}

func (l Lab) checkDisk() error {
	for _, d := range []string{string(l.Dir), string(l.Cache)} {
		if err := host.CheckDisk(d); err != nil {
			return err
		}
	}
	return nil
}

// Images builds the lab's own images and returns their tars.
func (l Lab) Images(ctx context.Context, metrics bool, stages *progress.Stages) ([]string, error) {
	type recipe struct {
		program binary.Program
		make    func(bin string) ([]image.Image, error)
	}
	recipes := []recipe{
		{appProgram(), func(bin string) ([]image.Image, error) {
			app, err := image.AppImage(bin)
			return []image.Image{image.PauseImage(bin), app}, err
		}},
		{binary.CoreDNS(), func(bin string) ([]image.Image, error) { return []image.Image{image.CoreDNSImage(bin)}, nil }},
	}
	if metrics {
		recipes = append(recipes, recipe{binary.Metrics(), func(bin string) ([]image.Image, error) { return []image.Image{image.MetricsImage(bin)}, nil }})
	}
	var tars []string
	for _, r := range recipes {
		bin, err := l.Cache.Build(ctx, r.program, stages)
		if err != nil {
			return nil, err
		}
		images, err := r.make(bin)
		if err != nil {
			return nil, err
		}
		for _, im := range images {
			tar, err := image.Store(ctx, l.Cache, im, filepath.Base(bin))
			if err != nil {
				return nil, err
			}
			tars = append(tars, tar)
		}
	}
	return tars, nil
}
