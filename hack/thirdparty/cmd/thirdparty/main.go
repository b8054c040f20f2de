// Command thirdparty brings the patched GoBGP of a checkout up to date and prints
// the path of the go.mod that takes it, or with -source writes the patched release
// into a directory, to work on the patches or to run its own tests. See package
// thirdparty.
//
//	go build -modfile="$(go run ./hack/thirdparty/cmd/thirdparty)" ./cmd/agent
//	go run ./hack/thirdparty/cmd/thirdparty -source /tmp/gobgp
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

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
	source := fs.String("source", "", "write the patched release into this directory instead, which must not be there")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *source != "" {
		return thirdparty.Source(ctx, *root, *source)
	}
	modfile, err := thirdparty.Make(ctx, *root)
	if err != nil {
		return err
	}
	fmt.Println(modfile)
	return nil
}
