// Command conformance runs the suites of others on a lab: it is what
// `make conformance` runs.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/muslin-net/muslin/hack/conformance"
	"github.com/muslin-net/muslin/hack/scenario"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	o := conformance.Options{Out: os.Stdout}
	flag.StringVar(&o.Lab.Name, "name", "conformance", "name of the lab")
	flag.StringVar(&o.Topology, "topology", "hack/lab/topologies/two-racks.yaml", "topology file")
	flag.StringVar(&o.Focus, "focus", "", "regular expression on the names of cases to run, but for cyclonus'; empty: the suite's own")
	flag.StringVar(&o.Skip, "skip", "", "regular expression on the names of cases to leave out, but for cyclonus'")
	names := flag.String("suites", "", "suites to run, in this order, of "+strings.Join(conformance.Suites(), ", ")+"; empty: all that the topology has addresses for")
	flag.Parse()
	for name := range strings.FieldsFuncSeq(*names, func(r rune) bool { return r == ',' }) {
		if !slices.Contains(conformance.Suites(), name) {
			return fmt.Errorf("no suite %q: there are %s", name, strings.Join(conformance.Suites(), ", "))
		}
		o.Suites = append(o.Suites, name)
	}
	var err error
	if o.Source, err = os.Getwd(); err != nil {
		return err
	}
	defer scenario.RemoveProducts()
	return conformance.Run(ctx, o)
}
