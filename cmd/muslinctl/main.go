// Command muslinctl manages the objects of a Muslin network and answers
// questions about it. Under the name kubectl-muslin it is a kubectl plugin.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/muslin-net/muslin/cmd/muslinctl/app"
)

var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := app.Main(ctx, app.Streams(version), os.Args)
	stop()
	os.Exit(code)
}
