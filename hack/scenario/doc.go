// Package scenario plays whole stories on a lab: the main job (a cluster over
// two racks whose pods talk over BGP) and the faults that must not hurt it.
//
// `make lab` runs MainJob and shows its report; the package's tests run the same
// steps and then break things. Everything is looked at from outside, with the
// tools an operator has: kubectl, ip, birdc, vtysh, ping, traceroute. It knows
// nothing of the agent's insides and touches only machines of its lab.
package scenario
