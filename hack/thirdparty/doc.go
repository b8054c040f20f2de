// Package thirdparty makes the GoBGP that Muslin ships: the release that go.mod
// requires, with the patches of third_party/gobgp/patches on top.
//
// go.mod itself requires the release and replaces nothing, so the go command, gopls
// and govulncheck need nothing of this. What make builds and tests, and every image,
// takes the patched release: Make writes it into a folder that git ignores, with a
// second go.mod that puts it in the release's place, for the go command's -modfile.
//
// It never runs as part of Muslin. Footprint: third_party/gobgp/patched in a checkout,
// which holds its own sums, and by them a later call recognises whether it is what it
// would make. The release comes from the module cache, or is fetched as the go command
// fetches any other; `git apply` runs in a directory of its own.
package thirdparty
