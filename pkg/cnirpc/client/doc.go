// Package client calls the agent from the CNI plugin: one unary gRPC call over a
// unix socket, and nothing else of gRPC.
//
// It is what keeps the plugin small and quick to start: a few hundred lines on
// top of syscall instead of grpc-go and the protobuf runtime. It also does without
// os, net, fmt, time, bufio, reflect, encoding/… and hpack: what they set up when
// the process starts takes longer than the call. It is tested against grpc-go's server,
// golang.org/x/net and the generated code's encoding.
//
// What it speaks: HTTP/2 (RFC 9113) with one stream, flow control in both
// directions, CONTINUATION, PING, GOAWAY and RST_STREAM; gRPC's deadline header,
// length-prefixed message, trailers and status details. What it never does: TLS,
// compression, streaming, retries, more than one call on a connection.
//
// Kernel footprint: one connected unix socket while a call runs; the process
// owns nothing that a later one would have to recognise.
package client
