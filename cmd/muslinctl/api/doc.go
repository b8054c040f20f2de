// Package api is muslinctl's door to a Kubernetes API server: it finds the
// kubeconfig, speaks plain REST in JSON for the kinds of package kind, and turns
// what goes wrong into one line with what to do.
//
// It never asks the server what it serves: the paths of known kinds are a
// table. It reads no object that was not asked for, and writes nothing of its
// own accord. Wire footprint: requests to the API server with user agent
// muslinctl; fresh processes have nothing to recognise.
package api
