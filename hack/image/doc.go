// Package image writes container images without a container engine: an OCI
// image layout (image-spec v1.1) in a tar archive, one layer, made from files on
// disk, that `ctr images import`, `docker load` and `skopeo` read.
//
// It is reproducible: the same Spec and the same file contents give the same
// bytes, on any machine and at any time. Names are sorted, times are fixed,
// owners are root, and the compressors run on one goroutine.
//
// It never runs a build inside an image, never starts from a base image and
// never reaches a registry. It has no kernel or wire footprint: all it leaves
// is the archive that it was asked to write, so a fresh process has nothing to
// recognise.
//
//   - Write: Spec in, archive out, Report back. For any small image.
//   - WriteIndex: the same for several architectures under one name.
//   - Programs, Build and Product: Muslin's own binaries and the Spec of its
//     image, for cmd/image and the lab.
package image
