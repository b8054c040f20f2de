// Command mainjob brings a lab up, installs Muslin on it and prints the report:
// it is what `make lab` runs.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/muslin-net/muslin/hack/lab"
	"github.com/muslin-net/muslin/hack/scenario"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mainjob:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	name := flag.String("name", "muslin", "name of the lab")
	topology := flag.String("topology", "hack/lab/topologies/two-racks.yaml", "topology file")
	flag.Parse()
	source, err := os.Getwd()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, scenario.Timeout)
	defer cancel()
	defer scenario.RemoveProducts()
	_, report, err := scenario.MainJob(ctx, scenario.MainJobOptions{
		Lab: lab.Options{Name: *name}, Topology: *topology, Source: source, Out: os.Stdout,
	})
	fmt.Println(report)
	return err
}
