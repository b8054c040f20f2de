// Package selector reads and evaluates Calico's label selectors, the language
// of IPPool.spec.nodeSelector, BGPPeer.spec.peerSelector and their like:
//
//	all()                      everything
//	has(rack)                  the label is there, with any value
//	rack == 'a', rack != 'a'   equal; different or absent
//	rack in {'a', 'b'}         one of the values
//	rack not in {'a', 'b'}     none of the values, or absent
//	name contains 'web'        also: starts with, ends with
//	a && b, a || b, !a, (a)    && binds closer than ||
//
// global(), which stands alone and only in a policy's namespaceSelector, is no
// selector of labels: IsGlobal knows it.
//
// The empty text selects everything. Strings stand in single or double quotes
// and have no escapes. A label name is made of letters, digits and "_./-".
//
// It decides and does nothing else: no input or output, no state, and no
// package but the standard library. A parsed Selector satisfies
// model.Selector. Kernel and wire footprint: none.
package selector
