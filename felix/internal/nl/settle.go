package nl

import (
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/pkg/model"
)

// Settle waits until the kernel has done what it has told of. It tells of a lost
// address or link before it takes the IPv4 routes, without a word, and a dump does
// not wait for that. A change of routes does, for the lock of rtnetlink: here of a
// route that nobody has.
func (c *Conn) Settle() error {
	var nothing Batch
	nothing.Add(unix.RTM_DELROUTE, 0, func(b []byte) []byte {
		b = append(b, unix.AF_INET, 32, 0, 0, unix.RT_TABLE_MAIN, model.RouteProtocol, unix.RT_SCOPE_NOWHERE, unix.RTN_UNSPEC, 0, 0, 0, 0)
		return AppendAttr(b, unix.RTA_DST, make([]byte, 4))
	})
	return c.Do(&nothing, func(int, error) {}) // refused in any case
}
