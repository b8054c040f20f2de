// Package stack gives a program's main goroutine a stack of 32 KiB at once, for
// the CNI plugin, which lives for milliseconds. Otherwise the stack begins with
// 2 KiB and grows by doubling, and each time the runtime prepares eight, four or
// two stacks of the next size: as many pages that the kernel has to give.
//
// It imports nothing, so that it is set up before the packages that do.
//
// Kernel and wire footprint: none.
package stack

func init() { take(0) }

// take has a frame as large as the room, and leaves it as it is.
//
//go:noinline
func take(n int) byte {
	if n == 0 {
		return 0
	}
	var room [20 << 10]byte
	room[n] = 1
	return room[n/2]
}
