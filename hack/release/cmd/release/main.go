// Command release makes the files of a release. See package release.
//
//	go run ./hack/release/cmd/release -version v1.2.3 -image registry.example.net/muslin -o dist/v1.2.3
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/muslin-net/muslin/hack/release"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o release.Options
	fs := flag.NewFlagSet("release", flag.ContinueOnError)
	fs.StringVar(&o.Root, "root", ".", "checkout of the module")
	fs.StringVar(&o.Version, "version", "", "v1.2.3")
	fs.StringVar(&o.Image, "image", "", "where the image will be pulled from, without tag (default: nowhere)")
	fs.StringVar(&o.URL, "url", "", "where the files will be found (default: the project's releases)")
	fs.StringVar(&o.Out, "o", "", "directory for the files (default: dist/VERSION)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if o.Out == "" {
		o.Out = filepath.Join("dist", o.Version)
	}
	if err := release.Make(ctx, o); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(o.Out, "checksums.txt"))
	if err != nil {
		return err
	}
	fmt.Printf("%s:\n%s", o.Out, text)
	return nil
}
