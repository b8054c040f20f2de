// Command muslin is the CNI plugin. It hands what the runtime gave it to the
// agent of this node, over a unix socket, and prints the answer.
//
// It speaks CNI 0.3.1 to 1.1.0: ADD, DEL, CHECK, STATUS, GC and VERSION. It holds
// no token, opens no netlink socket and knows nothing of Kubernetes. It is
// started for every pod, twice, so it links no more than that takes.
//
// Its own keys of the network configuration, both optional:
//
//	socket  the agent's socket (/run/muslin/agent.sock)
//	spool   where a DEL is recorded while the agent is away
//	        (/var/lib/muslin/cni-spool)
//
// Kernel footprint: one connection to the socket; with the agent away, one file
// for a DEL (see package spool). Everything else is the agent's.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	cniversion "github.com/containernetworking/cni/pkg/version"

	"github.com/muslin-net/muslin/pkg/cnirpc/client"
	"github.com/muslin-net/muslin/pkg/cnirpc/spool"
)

// version is set by the linker.
var version = "dev"

// timeout bounds a call: a runtime that gives up earlier kills the plugin, and
// the agent sees the connection close.
const timeout = time.Minute

func main() {
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add:    add,
		Del:    del,
		Check:  forward(client.Check, types.ErrTryAgainLater),
		GC:     forward(client.GC, types.ErrTryAgainLater),
		Status: forward(client.Status, types.ErrPluginNotAvailable), // the code that STATUS has for it
	}, cniversion.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0"), "CNI plugin muslin "+version)
	if err == nil {
		return
	}
	if printErr := err.Print(); printErr != nil {
		fmt.Fprintln(os.Stderr, "muslin: print error:", printErr)
	}
	os.Exit(1)
}

// settings are the keys of the network configuration that are for the plugin.
type settings struct {
	Socket string `json:"socket"`
	Spool  string `json:"spool"`
}

func parse(args *skel.CmdArgs) (settings, client.Request, error) {
	s := settings{Socket: client.DefaultSocket, Spool: spool.DefaultDir}
	if err := json.Unmarshal(args.StdinData, &s); err != nil {
		return s, client.Request{}, types.NewError(types.ErrDecodingFailure, "network configuration: "+err.Error(), "")
	}
	return s, client.Request{
		ContainerID: args.ContainerID, Netns: args.Netns, IfName: args.IfName, Args: args.Args, Config: args.StdinData,
	}, nil
}

func add(args *skel.CmdArgs) error {
	s, req, err := parse(args)
	if err != nil {
		return err
	}
	out, err := call(s, client.Add, req)
	if err != nil {
		return explain(s, err, types.ErrTryAgainLater)
	}
	if _, err := os.Stdout.Write(out); err != nil {
		return types.NewError(types.ErrIOFailure, "print result: "+err.Error(), "")
	}
	return nil
}

// del records the request when the agent is away, and the runtime may forget
// the pod. A slow agent is not away: the runtime asks again.
func del(args *skel.CmdArgs) error {
	s, req, err := parse(args)
	if err != nil {
		return err
	}
	_, err = call(s, client.Del, req)
	var away *client.Unavailable
	if errors.As(err, &away) {
		_, recordErr := spool.Write(s.Spool, req)
		if recordErr == nil {
			return nil
		}
		err = errors.Join(err, recordErr)
	}
	return explain(s, err, types.ErrTryAgainLater)
}

func forward(verb client.Verb, away uint) func(*skel.CmdArgs) error {
	return func(args *skel.CmdArgs) error {
		s, req, err := parse(args)
		if err != nil {
			return err
		}
		_, err = call(s, verb, req)
		return explain(s, err, away)
	}
}

func call(s settings, verb client.Verb, req client.Request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return client.Call(ctx, s.Socket, verb, req)
}

// explain keeps the agent's own errors and turns its silence into one that says
// what to look at.
func explain(s settings, err error, away uint) error {
	var said *client.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &said):
		return said
	}
	return types.NewError(away, err.Error(), fmt.Sprintf(
		"is the muslin-agent pod of this node running, and does it serve %s? See: kubectl -n muslin-system get pods -o wide", s.Socket))
}
