// Command probe is the lab's test instrument: one small static program that
// serves, dials, pings and traces, in pods and on machines.
//
//	probe serve [-port 8080]           TCP and UDP: answers "PEER HOSTNAME"
//	probe dial [-udp] [-timeout 5s] HOST:PORT
//	                                   prints what the server saw and who it is
//	probe ping [-c N] [-i 10ms] [-w 1s] HOST
//	                                   prints sent, received and lost as JSON;
//	                                   without -c until SIGTERM or SIGINT
//	probe stream [-rate 1000] [-flows 16] HOST:PORT
//	                                   sends UDP packets until SIGTERM or SIGINT
//	                                   and prints how many as JSON
//	probe sink [-port 9000]            counts them, and prints that as JSON
//	probe trace [-m 16] [-w 1s] HOST   prints one hop a line
//	probe pause                        holds a pod's namespaces, reaps children
//
// HOST is an IPv4 or IPv6 address. It needs no files; ping uses unprivileged
// ICMP sockets where they are allowed and raw ones otherwise.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: probe serve|dial|ping|stream|sink|trace|pause …")

func run(args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	if args[0] == "pause" {
		pause()
		return nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	command, ok := map[string]func(context.Context, []string) error{
		"serve": serve, "dial": dial, "ping": ping, "stream": stream, "sink": sink, "trace": trace,
	}[args[0]]
	if !ok {
		return errUsage
	}
	return command(ctx, args[1:])
}

// parse reads the flags and the one argument that dial, ping and trace take.
func parse(flags *flag.FlagSet, args []string) (target string, err error) {
	if err := flags.Parse(args); err != nil {
		return "", err
	}
	if flags.NArg() != 1 {
		return "", fmt.Errorf("%s: want one target", flags.Name())
	}
	return flags.Arg(0), nil
}

// pause waits for a signal to end, and reaps the orphans of a shared PID
// namespace meanwhile.
func pause() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}
