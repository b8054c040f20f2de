// Package skew plays programs of the release before beside those of this tree, as
// they run during a rollout, forward and back: CNI plugin, agent and controller by
// pairs, on a real API server, with the rights of their service accounts. make skew
// builds the former and runs it. The chart of the release before is upgraded to this
// tree's, and rolled back; docs/operations.md says what is supported.
package skew
