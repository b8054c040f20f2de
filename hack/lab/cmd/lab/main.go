// Command lab runs a Kubernetes cluster in racks on this machine.
//
//	lab up FILE                  start the lab of a topology file
//	lab down                     remove it, whatever is left of it
//	lab status                   what runs, and how the nodes are
//	lab exec MACHINE -- CMD      run CMD in a node, router, outside or cp
//	lab kubectl ARGS             kubectl as administrator
//	lab power off|on MACHINE     power cut, boot
//	lab link down|up MACHINE     pull the network cables, plug them in
//	lab load IMAGE.tar [NODE…]   import an OCI archive into full nodes
//	lab deps                     name the programs that this host lacks
//
// See package lab for what it leaves on the host while it is up. It needs root.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		// What ran in a machine has said itself what went wrong.
		os.Exit(exit.ExitCode())
	default:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}
