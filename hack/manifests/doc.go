// Package manifests renders what is installed: the kustomizations in folder manifests
// to YAML, and writes the files there that are made from others, so that there is one
// truth of the DaemonSet, the Deployment, rights and CRDs.
//
// It is a tool of the build, run by make manifests; a test in folder manifests fails when
// a file is not what it would write. It has no footprint but these files: a fresh
// run writes them anew.
package manifests
