// Package relayrpc is the wire between agents and policy relays: relay.proto and what
// is generated of it. It decides nothing; package policyrelay has both ends.
//
// Footprint: none of its own.
package relayrpc

//go:generate ../../../hack/protoc.sh relay.proto
