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
// A runtime takes the first configuration by name. InPlace names those before
// ours; only MoveAway, for who asks for it, renames them. It never restarts
// anything and never makes the directories' parents other than with 0755.
//
// Kernel footprint: BinDir/muslin and ConfDir/10-muslin.conflist; while it
// works, .muslin-new-* beside them; *.muslin-backup of what was moved away. A
// fresh process recognises its files by these names, which nobody else uses. In
// the configuration only our plugin's entry is ours.
package cniinstall
