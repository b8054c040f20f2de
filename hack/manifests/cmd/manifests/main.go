// Command manifests writes the files in folder manifests that are made from others,
// with the place of an image in them if one is given. See package manifests.
//
//	go run ./hack/manifests/cmd/manifests -image registry.example.net/muslin:v1@sha256:...
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/muslin-net/muslin/hack/manifests"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "manifests:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	fs := flag.NewFlagSet("manifests", flag.ContinueOnError)
	root := fs.String("root", ".", "checkout of the module")
	ref := fs.String("image", "", "registry/name:tag@sha256:digest that the manifests ask for (default: as it is)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *ref != "" {
		image, err := manifests.ParseImage(*ref)
		if err != nil {
			return err
		}
		if err := manifests.SetImage(*root, image); err != nil {
			return err
		}
	}
	return manifests.Write(*root)
}
