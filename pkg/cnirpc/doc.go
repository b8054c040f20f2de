// Package cnirpc is the contract between the CNI plugin and the agent: cni.proto,
// the code generated from it, and how a CNI error travels in a gRPC status.
//
// Any gRPC client can talk to the agent with the generated client. The plugin
// itself does not: a program that links grpc-go's client is 10.4 MB stripped and
// takes 3.4 ms to start, where the plugin may be 8 MB and is started for every
// pod. It uses package client, below this one, which speaks just as much of
// gRPC as one unary call needs and imports none of this package.
//
// Wire footprint: the unix socket that package cniserver serves. Never opens it
// itself; holds no state, so a fresh process has nothing to recognise.
package cnirpc

//go:generate ../../hack/protoc.sh cni.proto
