// Command image builds Muslin's binaries and writes its container image as an
// OCI archive, then prints what it weighs. See package image.
//
//	go run ./hack/image/cmd/image -o muslin.tar
//	ctr -n k8s.io images import muslin.tar
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/muslin-net/muslin/hack/image"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fs := flag.NewFlagSet("image", flag.ContinueOnError)
	out := fs.String("o", "muslin.tar", "archive to write")
	ref := fs.String("ref", image.Ref, "full image name with tag")
	root := fs.String("root", ".", "checkout of the module")
	version := fs.String("version", "dev", "version the programs report")
	arch := fs.String("arch", "", "GOARCH (default: this machine's)")
	compress := fs.String("compress", string(image.Zstd), "layer compression: zstd, gzip, none")
	limit := fs.Float64("limit", 0, "fail above this many MB compressed (0: no limit)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	bin, err := os.MkdirTemp("", "muslin-image-")
	if err != nil {
		return fmt.Errorf("make build directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
	files, err := image.Build(ctx, image.BuildOptions{
		Root: *root, Out: bin, Version: *version, Architecture: *arch,
	}, image.Present(*root))
	if err != nil {
		return err
	}
	spec := image.Product(*ref, *version, files)
	spec.Architecture, spec.Compression = *arch, image.Compression(*compress)
	report, err := image.WriteFile(*out, spec)
	if err != nil {
		return err
	}
	fmt.Print(report)
	if *limit > 0 && float64(report.Compressed) > *limit*1e6 {
		return fmt.Errorf("compressed layer of %.2f MB is over the limit of %.2f MB", float64(report.Compressed)/1e6, *limit)
	}
	return nil
}
