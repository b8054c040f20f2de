// Package thirdparty makes the copy of GoBGP that stands in third_party/gobgp:
// the packages of a release that Muslin needs, as they were published, with the
// patches in third_party/gobgp/patches on top. Nothing is changed in the copy by
// hand; a test makes it again and compares.
//
// It never runs as part of Muslin. Footprint: the module's archive is fetched as
// the go command fetches any other, and `git apply` runs in a directory of its own.
package thirdparty
