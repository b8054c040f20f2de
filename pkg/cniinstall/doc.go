// Package cniinstall puts the CNI plugin and its network configuration on a
// node, and takes them away again.
//
// The order is the point. The binary comes first, by the init container. The
// configuration comes last, by the agent, when its socket answers: the runtime
// reports the node's network as ready the moment the file is there. On the way
// out it goes first.
//
// A file is replaced by a rename, so that a runtime sees the old one or the new
// one and never half of one, and a running plugin keeps its text. What is right
// already is not touched: the runtime watches the directory.
//
// It never restarts anything, never reads or orders other networks'
// configurations, and never makes the directories' parents other than with 0755.
//
// Kernel footprint: BinDir/muslin and ConfDir/10-muslin.conflist; while it
// works, .muslin-new-* beside them. A fresh process recognises its files by
// these names, which nobody else uses.
package cniinstall
