// Package input reads objects from files, folders and standard input: YAML or
// JSON, several documents to a file, Lists unfolded.
//
// It judges nothing but whether there is an object with a kind that is known.
// Footprint: reads the files that it is told to.
package input
