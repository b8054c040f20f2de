// Package app is muslinctl: one file a verb, each a thin layer of flags over the
// packages beside it that do the work.
//
//   - kind: the kinds, their columns and fields; a table instead of discovery
//   - api: REST, and errors with what to do
//   - input, print: objects in, objects out
//   - world: the cluster as the agents see it, read once
//   - ipamview, agentview, explain, check, preview, router: what the verbs of the
//     same names decide, without I/O where that can be
//
// It never decides what a node does: it asks the same pure functions that the
// agents ask, or the agents themselves. It writes API objects only on a verb
// that says so. Wire footprint: requests to the API server, and through it port
// forwards to agents. Nothing of it stays, so a fresh process has nothing to
// recognise.
package app
