// Command muslin is the CNI plugin. It hands what the runtime gave it to the
// agent of this node, over a unix socket, and prints the answer.
//
// It speaks CNI 0.3.1 to 1.1.0: ADD, DEL, CHECK, STATUS, GC and VERSION. It holds
// no token, opens no netlink socket and knows nothing of Kubernetes. It is
// started for every pod, twice, so it links no more than that takes: what os, fmt,
// net, time, encoding/… and CNI's own skeleton set up before main begins costs
// more than all that it has to do. What the skeleton checks is in runtime.go.
//
// Its own keys of the network configuration, both optional:
//
//	socket  the agent's socket (/run/muslin/agent.sock)
//	spool   where a DEL is recorded for the agent (/var/lib/muslin/cni-spool)
//
// Kernel footprint: one connection to the socket; for a DEL one file instead (see
// package record). Everything else is the agent's.
package main

import (
	"errors"
	"io"
	"syscall"

	_ "github.com/muslin-net/muslin/cmd/cni/stack" // a stack that need not grow
	"github.com/muslin-net/muslin/pkg/cnirpc/client"
	"github.com/muslin-net/muslin/pkg/cnirpc/fd"
	"github.com/muslin-net/muslin/pkg/cnirpc/spoolentry"
)

// version is set by the linker.
var version = "dev"

// timeout bounds a call, in milliseconds: a runtime that gives up earlier kills
// the plugin, and the agent sees the connection close.
const timeout = 60_000

// What is read and written, unless it is longer. Of memory that nobody allocates
// only the pages that are used cost anything; on the heap each size of object
// takes two of its own.
var input, output [64 << 10]byte

func main() {
	out, err := run(getenv, fd.FD(syscall.Stdin))
	if err != nil {
		out = printed(err)
	}
	if _, writeErr := fd.FD(syscall.Stdout).Write(out); writeErr != nil {
		complain("muslin: print result: " + writeErr.Error() + "\n")
		syscall.Exit(1)
	}
	if err != nil {
		syscall.Exit(1)
	}
}

func getenv(name string) string {
	value, _ := syscall.Getenv(name)
	return value
}

func complain(text string) { _, _ = fd.FD(syscall.Stderr).Write([]byte(text)) }

// run does what the runtime asks for and returns what goes to standard output.
func run(getenv func(string) string, stdin io.Reader) ([]byte, error) {
	verb := getenv("CNI_COMMAND")
	switch verb {
	case "":
		complain("CNI plugin muslin " + version + "\nCNI protocol versions supported: " + versionList(", ") + "\n")
		return nil, nil
	case "VERSION":
		return versionResult(), nil
	}
	c, err := read(verb, getenv, stdin)
	if err != nil {
		return nil, err
	}
	if verb == "DEL" {
		return nil, del(c)
	}
	out, err := call(c)
	if verb != "ADD" {
		out = nil
	}
	return out, explain(c, err)
}

// del writes the DEL down, and the runtime may forget the pod: the agent sees
// the record and does it, at once or when it is there again. Without a place to
// write, the agent has to do it now.
func del(c request) error {
	err := spoolentry.Write(c.spool, c.Request, output[:0])
	if err == nil {
		return nil
	}
	if _, callErr := call(c); callErr != nil {
		return explain(c, errors.Join(callErr, err))
	}
	return nil
}

func call(c request) ([]byte, error) { return client.Call(c.socket, timeout, c.verb, c.Request) }

// explain keeps the agent's own errors and turns its silence into one that says
// what to look at.
func explain(c request, err error) error {
	var stated *client.Error
	if err == nil || errors.As(err, &stated) {
		return err
	}
	code := codeTryAgainLater
	if c.verb == client.Status {
		code = codePluginNotAvailable // the code that STATUS has for it
	}
	return &client.Error{Code: code, Msg: err.Error(), Details: "is the muslin-agent pod of this node running, and does it serve " +
		c.socket + "? See: kubectl -n muslin-system get pods -o wide"}
}
