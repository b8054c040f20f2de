// Package release makes what a release consists of, from a checkout and the module
// cache, without network and secrets: the image index, archives of muslinctl, the
// rendered manifests, the chart, krew's manifest, a bill of materials and checksums.
//
// It is reproducible: the same checkout, version and Go toolchain give the same bytes
// on any machine. It publishes and signs nothing. Footprint: the directory that it is
// asked to write, which must not be there yet or be one that it has made, as its
// checksums.txt shows; and the patched GoBGP that hack/thirdparty keeps in the checkout.
package release
