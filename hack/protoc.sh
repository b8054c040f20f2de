#!/bin/sh
# protoc.sh NAME.proto generates NAME.pb.go and NAME_grpc.pb.go beside it, in the folder it is
# called in. Needs protoc (Debian: protobuf-compiler); the plugins come from hack/tools.
set -eu
root=$(git rev-parse --show-toplevel)
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
tool() { (cd "$root" && go build -modfile=hack/tools/go.mod -o "$bin/" "$1"); }
tool google.golang.org/protobuf/cmd/protoc-gen-go
tool google.golang.org/grpc/cmd/protoc-gen-go-grpc
PATH="$bin:$PATH" protoc --go_out=. --go_opt=paths=source_relative \
  --go-grpc_out=. --go-grpc_opt=paths=source_relative "$1"
