package pod

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/pkg/model"
)

// deleteGroup is the link group of links on their way out ("musl"). Links in a
// group are deleted by one request that waits once for all of them, where each
// alone waits 16 to 20 ms.
const deleteGroup = 0x6d75736c

// removal is a link that somebody waits to see deleted.
type removal struct {
	index int
	done  bool
	err   error
}

// Detach unplugs a container's interface. hostInterface is a hint that saves a
// search and may be empty. What is not there is unplugged already; a link that
// belongs to another container stays.
func (p *Plugger) Detach(ctx context.Context, containerID, iface, hostInterface string) error {
	index, err := p.find(containerID, iface, hostInterface)
	if err == nil && index != 0 {
		err = p.remove(ctx, index)
	}
	if err != nil {
		return fmt.Errorf("detach %s/%s: %w", containerID, iface, err)
	}
	return nil
}

// find returns the index of the host's end, 0 when there is none.
func (p *Plugger) find(containerID, iface, hostInterface string) (int, error) {
	owner := aliasPrefix + containerID + "/" + iface + " "
	if hostInterface != "" {
		l, err := p.conn.GetLink(hostInterface)
		if err == nil && (strings.HasPrefix(l.Alias, owner) || p.leftHalfMade(l)) {
			return l.Index, nil
		}
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return 0, err
		}
		return 0, nil
	}
	found := 0
	err := p.conn.DumpAll(unix.RTM_GETLINK, unix.SizeofIfInfomsg, func() { found = 0 }, func(b []byte) {
		if l := nl.ParseLink(b); strings.HasPrefix(l.Alias, owner) {
			found = l.Index
		}
	})
	return found, err
}

// leftHalfMade tells of a link that nobody owns and nobody makes: the process
// that made it was killed before it wrote the alias, which the kernel takes only
// for a link that exists.
func (p *Plugger) leftHalfMade(l model.Link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return l.Alias == "" && !l.AdminUp && p.making[l.Name] == 0
}

// remove deletes a link and waits for it. Those who come while a deletion runs
// are served together by the next one.
func (p *Plugger) remove(ctx context.Context, index int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := &removal{index: index}
	p.mu.Lock()
	p.pending = append(p.pending, r)
	p.mu.Unlock()
	p.turn.Lock()
	defer p.turn.Unlock()
	if !r.done {
		p.mu.Lock()
		batch := p.pending
		p.pending = nil
		p.mu.Unlock()
		p.deleteAll(batch)
	}
	return r.err
}

func (p *Plugger) deleteAll(batch []*removal) {
	var marks nl.Batch
	for _, r := range batch {
		marks.Add(unix.RTM_NEWLINK, 0, func(b []byte) []byte {
			return nl.AppendAttr32(nl.LinkHeader(b, r.index, 0, 0), unix.IFLA_GROUP, deleteGroup)
		})
	}
	err := p.conn.Do(&marks, func(i int, err error) { batch[i].err = absent(err) })
	var del nl.Batch
	del.Add(unix.RTM_DELLINK, 0, func(b []byte) []byte {
		return nl.AppendAttr32(nl.LinkHeader(b, 0, 0, 0), unix.IFLA_GROUP, deleteGroup)
	})
	err = errors.Join(err, p.conn.Each(&del, func(_ int, err error) error { return absent(err) }))
	for _, r := range batch {
		r.done = true
		if err != nil {
			r.err = fmt.Errorf("delete link: %w", errors.Join(r.err, err))
		}
	}
}

func absent(err error) error {
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}
