package pod

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
)

// waitUsable waits until packets pass both ways. Two things the kernel does
// later than it says, and loses packets until then:
//
// The node's end, set up before there was a carrier, passes packets once the
// link watch has run, up to a second later; since Linux 6.9 asking for the link
// makes it run.
//
// An IPv6 address is one that the pod answers for once a work queue has put its
// local route in, without duplicate detection too, and not before the pod's end
// is up in the same sense.
func (p *Plugger) waitUsable(ctx context.Context, s Spec, inside *podSide) error {
	if err := poll(ctx, "link "+s.HostInterface+" passes packets", func() (bool, error) {
		l, err := p.conn.GetLink(s.HostInterface)
		return l.Up, err
	}); err != nil {
		return err
	}
	for _, a := range s.Addresses {
		if a.Is4() {
			continue // its route is there when the answer is
		}
		if err := poll(ctx, "the pod answers for "+a.String(), func() (bool, error) {
			if local, err := isLocal(inside.conn, a); local || err != nil {
				return local, err
			}
			_, err := inside.conn.GetLink(s.Interface) // makes the link watch run
			return false, err
		}); err != nil {
			return err
		}
	}
	return nil
}

// isLocal asks the kernel whether an address is its own.
func isLocal(conn *nl.Conn, a netip.Addr) (bool, error) {
	answer, err := conn.Get(unix.RTM_GETROUTE, func(b []byte) []byte {
		b = append(b, nl.Family(a), byte(a.BitLen()), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		return nl.AppendAttr(b, unix.RTA_DST, a.AsSlice())
	})
	if err != nil {
		return false, fmt.Errorf("look up %s in the pod: %w", a, err)
	}
	const typeAt = 7 // struct rtmsg
	return len(answer) > typeAt && answer[typeAt] == unix.RTN_LOCAL, nil
}

// poll asks until it is so, at most every millisecond.
func poll(ctx context.Context, what string, ask func() (bool, error)) error {
	for {
		ok, err := ask()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}
