// Command vm runs a command as root on a second kernel, with this machine's
// root file system underneath.
//
//	vm [-C DIR] [-m MIB] [-c CPUS] [-k RELEASE] [-t TIME] CMD ARGS…
//
// What CMD writes to files is gone at its end. vm's exit status is CMD's; 125
// means that CMD did not run to its end. See package vm for what is left in the
// cache.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/hack/vm"
)

func main() {
	o := vm.Options{Output: os.Stdout, Notes: os.Stderr}
	flag.StringVar(&o.Dir, "C", "", "working `directory` of the command (default /)")
	flag.IntVar(&o.Memory, "m", 0, "`MiB` of memory (default 2048)")
	flag.IntVar(&o.CPUs, "c", 0, "number of `CPUs` (default 2)")
	flag.StringVar(&o.Kernel, "k", "", "`release` of Debian whose kernel is started (default this machine's)")
	limit := flag.Duration("t", 10*time.Minute, "`time` after which the machine is switched off")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: vm [flags] CMD ARGS…")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(125)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, *limit)
	_, status, err := vm.Run(ctx, o, flag.Args()...)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		status = 125
	}
	os.Exit(status)
}
