// Command vuln names the known vulnerabilities of what the programs import, and fails
// when there are any. See package vuln.
//
//	go run ./hack/vuln/cmd/vuln
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/muslin-net/muslin/hack/vuln"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "vuln:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fs := flag.NewFlagSet("vuln", flag.ContinueOnError)
	o := vuln.Options{Packages: []string{"./cmd/..."}}
	fs.StringVar(&o.Root, "root", ".", "checkout of the module")
	fs.StringVar(&o.Version, "db", "latest", "version of the database, which is the module golang.org/x/vulndb")
	if err := fs.Parse(args); err != nil {
		return err
	}
	found, err := vuln.Check(ctx, o)
	if err != nil {
		return err
	}
	for _, a := range found {
		fmt.Println(a)
	}
	if len(found) > 0 {
		return fmt.Errorf("%d known vulnerabilities", len(found))
	}
	for id, why := range vuln.Refuted {
		fmt.Printf("%s does not hold: %s\n", id, why)
	}
	fmt.Println("no known vulnerability in what the programs import")
	return nil
}
