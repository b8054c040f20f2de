// Package agentview asks the agent of a node, from wherever the API server can
// be reached: it forwards a port to the agent's pod and speaks HTTP over it.
//
// It only reads. Wire footprint: one port forward for each question; it ends
// with the answer.
package agentview
