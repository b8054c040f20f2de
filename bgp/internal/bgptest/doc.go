// Package bgptest gives tests a wire: throw-away network namespaces, joined by
// a bridge of their own, with real BIRD and FRR routers in them.
//
// It is for tests of package bgp's rooms only. Everything it makes has the
// prefix mt- and is gone when the test is.
package bgptest
