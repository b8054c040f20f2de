// Package policynft makes a policy.Program true: the nftables table
// "inet muslin-policy", and nothing outside it.
//
// It decides nothing: which packets a pod may send and get is in the Program. It
// never touches "inet muslin", and never opens what it does not know: a pod's
// interface that is not in the Program is dropped in both directions. Connections
// that are established go on when a policy is tightened, as with Calico, unless the Program has an EpochMask.
//
// Kernel footprint: the table "inet muslin-policy", as long as there is any policy in the cluster. Its base chains
// forward (priority filter) and input (the same) let established connections pass;
// forward drops a pod's packets of invalid state; both send the others to the chain "from" of
// the interface they came in by, then, forwarded ones, to "to" of the one they leave by.
// These two look the interface up in maps of the same name: to a chain of the Program,
// or to return where no policy selects the pod. What the host itself sends to its pods
// is not judged; what a pod sends to its host is, but for what ICMPv6 needs on a link
// (types 130 to 133, 135 and 136). Sets are called as in the Program, with 4 or 6 at the
// end; several ports of one rule are a set, "ports-…". A member of a set that comes or
// goes is one element, of a set of ranges two, a pod two, a policy the chains that have it.
// A rule that denies goes to a chain "deny-…", shared by all that stand for the same rule
// of a policy, which hands ten packets a second to the nflog group LogGroup, and then to
// "denied-ingress" or "denied-egress", which count and drop.
// While the node has host endpoints, "host-…" find the chain of an interface, jumped to from
// forward and input and from the base chains output (filter), untracked-in and untracked-out
// (raw) and pre-dnat (mangle). What the last three let pass has the bit AcceptedMark of its
// mark until input, output or forward.
// Connections of addresses that change hands are ended, by conntrack's netlink.
// With policy.Program.EpochMask what is established passes, in forward and from pods in input, while the
// mark of its connection has the number that the chain "established" asks for; else the opener's packets go the
// path of a first one, at whose end "stamp" gives the number. Whatever may deny more writes these two
// anew with the next number, in the same transaction.
//
// How does a fresh process recognise this as ours? By the table's name; see
// felix/internal/nftw for what in it is as wanted. It writes nothing then.
package policynft
