// Package vm runs a command on a second kernel: it boots a stock Debian kernel
// in qemu, with this machine's root file system underneath, runs one command
// there as root, and returns what it printed and its exit status. Tests use it
// for what the machine's own kernel lacks (IPIP, SCTP sockets).
//
//	out, status, err := vm.Run(ctx, vm.Options{}, "modprobe", "ipip")
//
// The guest sees every file of this machine at its path and may write anywhere;
// what it writes goes to its memory and is gone at the end. It has no network
// but what the command makes and Options.Links name, no devices, and no init: the command's children
// are killed when it ends. A test binary built here runs there unchanged, 10 to
// 20 times slower: qemu translates instructions (TCG), because a machine for
// tests seldom offers virtualization. A boot takes about five seconds. The
// kernel is that of this machine's release of Debian, or of another:
//
//	vm.Options{Kernel: "bullseye"}
//
// It never writes to this machine outside its cache directory and a temporary
// one, installs nothing, and needs no network once the kernel is in the cache.
// It works on Debian 12 for amd64 and needs the packages qemu-system-x86,
// kmod and xz-utils.
//
// Footprint: the cache directory (by default muslin/vm in the user's), with one
// directory for each kernel, named after its Debian package and version, below
// the name of its release if that is not this machine's, and the guest's init;
// one qemu process a Run, which ends with the caller. A fresh process recognises
// a kernel by that directory's name.
package vm
