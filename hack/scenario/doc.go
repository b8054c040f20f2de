// Package scenario plays whole stories on a lab: the main job (a cluster over
// two racks whose pods talk over BGP) and the faults that must not hurt it.
//
// `make lab` runs MainJob and shows its report; the package's tests run the same
// steps and then break things. Everything is looked at from outside, with the
// tools an operator has: kubectl, ip, birdc, vtysh, ping, traceroute. It knows
// nothing of the agent's insides and touches only machines of its lab.
//
// It is one package because its stories share one cluster. Read it in this order:
//
//	product.go        the programs and the image that stories run
//	cluster.go        Cluster: a lab with Muslin on it; pods.go: pods on it, and who reaches whom
//	mainjob.go        MainJob: bring up, install, look, report
//	mainjob_test.go   TestCluster, TestOperator, TestInstallation: their chapters in order
//	light.go          LightCluster: agents without kubelets; light_test.go: its chapters
//
// Every other file is a chapter, or a story with its own; its name begins with what it is about:
//
//	bad*, hostport, policy, services, withoutbgp, stream    chapters on kubelets
//	bgp*, mesh                                              what is said to routers and neighbors
//	ipam*, twice*                                           addresses, and that none is given twice
//	ctl*, explain, preview                                  muslinctl
//	helm, uninstall                                         installation
//	chaos*                                                  faults drawn from a seed: plan, faults, look
//	*soak*                                                  what make soak has more
package scenario
