// Command thirdparty writes third_party/gobgp anew from the release and the
// patches, or with -source the whole patched release, whose own tests can be run
// there. See package thirdparty.
//
//	go run ./hack/thirdparty/cmd/thirdparty
//	go run ./hack/thirdparty/cmd/thirdparty -source /tmp/gobgp
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/muslin-net/muslin/hack/thirdparty"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "thirdparty:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fs := flag.NewFlagSet("thirdparty", flag.ContinueOnError)
	root := fs.String("root", ".", "checkout of the module")
	source := fs.String("source", "", "write the whole patched release into this directory instead, which must not be there")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *source != "" {
		return thirdparty.Source(ctx, *root, *source)
	}
	return thirdparty.Make(ctx, *root, filepath.Join(*root, thirdparty.Dir))
}
