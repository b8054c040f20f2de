package alloc

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// planAddrs finds the blocks of addresses that are asked for by name.
func (w *assignment) planAddrs(ctx context.Context, have map[netip.Addr]netip.Prefix) ([]*part, error) {
	var parts []*part
	for _, addr := range w.req.Addrs {
		if _, ok := have[addr]; ok {
			continue
		}
		p, err := w.planAddr(ctx, addr)
		if err != nil {
			return nil, err
		}
		if p != nil {
			parts = append(parts, p)
		}
	}
	return parts, nil
}

func (w *assignment) planAddr(ctx context.Context, addr netip.Addr) (*part, error) {
	cidr, err := w.blockOf(addr)
	if err != nil {
		return nil, err
	}
	a := w.a
	for range maxRounds {
		a.mu.Lock()
		p := a.pages[cidr]
		own := p != nil && p.own(a.node) && p.state(a.node) == model.BlockConfirmed
		var b *ipam.Block
		if own {
			b = p.block
		}
		a.mu.Unlock()
		if own && w.live != nil {
			return w.foreignAddr(b, addr) // what is taken costs no write
		}
		if own {
			return &part{page: p, addr: addr, n: 1}, nil
		}
		b, _, err = a.getBlock(ctx, cidr)
		if err == nil {
			return w.foreignAddr(b, addr)
		}
		if !errors.Is(err, ipam.ErrNotFound) {
			return nil, err
		}
		if err = w.mayClaim(cidr, addr); err != nil {
			return nil, err
		}
		if err = a.claimBlock(ctx, cidr, a.makeBlock); err != nil && !errors.Is(err, errClaimed) {
			return nil, err
		}
	}
	return nil, errClaimed
}

// mayClaim refuses a new block for the sake of one address when something else
// uses a part of the block, since its owner drops packets for what no pod has, and
// to a new pod when the node has as many as it may: pods could claim a whole pool
// by naming an address of each block. Nor does a new pod get an address of a block
// that somebody else announces.
func (w *assignment) mayClaim(cidr netip.Prefix, addr netip.Addr) error {
	w.a.mu.Lock()
	defer w.a.mu.Unlock()
	ref := model.Ref{Kind: "Address", Name: addr.String()}
	switch {
	case w.live == nil && w.a.atLimit(model.FamilyOf(addr)):
		return &ipam.Error{Code: ipam.CodeBlockLimit, Object: ref, Detail: "it lies in no block, and the node holds as many blocks as it may",
			Hint: "ask for an address of a block that there is, or raise maxBlocksPerHost in IPAMConfiguration default"}
	case w.live == nil && w.a.elsewhere(cidr):
		return &ipam.Error{Code: ipam.CodePoolUnusable, Object: ref, Detail: fmt.Sprintf("its block %s does not exist, and somebody announces it", cidr),
			Hint: "see which node or router does: muslinctl explain " + addr.String()}
	case !w.a.set.excluded(cidr):
		return nil
	}
	return &ipam.Error{Code: ipam.CodePoolUnusable, Object: ref,
		Detail: fmt.Sprintf("no node may have its block %s, for something else than pods uses a part of it: condition Allocatable of the IPPool says what", cidr),
		Hint:   "ask for an address of another block"}
}

// foreignAddr plans for an address in a block, somebody else's as a rule; no part
// when the live endpoint has it already, by its handle of another network.
func (w *assignment) foreignAddr(b *ipam.Block, addr netip.Addr) (*part, error) {
	owner, taken := b.Owner(addr)
	taken = taken && !owner.Owns(w.req.Handle)
	switch {
	case taken && w.live != nil && w.live.is(owner):
		return nil, nil
	case taken && !w.succeeds(owner):
		return nil, ipam.ErrTaken(addr, owner)
	case w.live == nil && w.a.config().StrictAffinity && b.Node() != w.a.node:
		return nil, &ipam.Error{Code: ipam.CodeForeignBlock, Object: model.Ref{Kind: "Address", Name: addr.String()},
			Detail: fmt.Sprintf("it lies in block %s, which belongs to %q, and borrowing is off", b.CIDR(), b.Affinity()),
			Hint:   "ask for an address of this node's blocks, or set strictAffinity: false in IPAMConfiguration default"}
	}
	w.a.mu.Lock()
	defer w.a.mu.Unlock()
	return &part{page: w.a.page(b.CIDR()), addr: addr, n: 1, foreign: b.Node() != w.a.node}, nil
}

// blockOf is the block of an address: by its pool, or for one in use wherever a
// block with it is known to be.
func (w *assignment) blockOf(addr netip.Addr) (netip.Prefix, error) {
	if w.live == nil {
		return w.blockFor(addr)
	}
	w.a.mu.Lock()
	defer w.a.mu.Unlock()
	for _, p := range w.a.pages {
		if p.own(w.a.node) && p.cidr.Contains(addr) {
			return p.cidr, nil
		}
	}
	for cidr := range w.h.stored.Blocks {
		if w.h.known && cidr.Contains(addr) {
			return cidr, nil
		}
	}
	pool, ok := poolOf(w.a.set.pools, addr)
	if !ok {
		return netip.Prefix{}, errOutside(addr)
	}
	return blockIn(pool, addr), nil
}

// blockFor is the block an address belongs to by a pool that may give it.
func (w *assignment) blockFor(addr netip.Addr) (netip.Prefix, error) {
	w.a.mu.Lock()
	pools, labels := w.a.set.pools, w.a.set.labels
	w.a.mu.Unlock()
	ref := model.Ref{Kind: "Address", Name: addr.String()}
	pool, ok := poolOf(pools, addr)
	q := w.req.query(model.FamilyOf(addr), labels)
	use := q.use
	switch {
	case !ok:
		return netip.Prefix{}, errOutside(addr)
	case !usable(pool):
		return netip.Prefix{}, &ipam.Error{Code: ipam.CodePoolUnusable, Object: ref,
			Detail: fmt.Sprintf("IPPool %s is disabled, overlaps another pool or is being deleted", pool.Name), Hint: "ask for an address of another pool"}
	case !allows(pool, use):
		return netip.Prefix{}, &ipam.Error{Code: ipam.CodePoolUnusable, Object: ref,
			Detail: fmt.Sprintf("IPPool %s does not allow the use %s", pool.Name, use), Hint: "ask for an address of another pool"}
	case refuses(pool, q):
		return netip.Prefix{}, &ipam.Error{Code: ipam.CodePoolUnusable, Object: ref,
			Detail: fmt.Sprintf("IPPool %s is strict (%s), and its selectors do not match", pool.Name, AnnotationStrict), Hint: "ask for an address of another pool"}
	case slices.ContainsFunc(pool.Excluded, func(e netip.Prefix) bool { return e.Contains(addr) }):
		return netip.Prefix{}, &ipam.Error{Code: ipam.CodePoolUnusable, Object: ref,
			Detail: fmt.Sprintf("something else than pods uses it: condition Allocatable of IPPool %s says what", pool.Name), Hint: "ask for another address"}
	}
	return blockIn(pool, addr), nil
}

func blockIn(pool model.Pool, addr netip.Addr) netip.Prefix {
	return netip.PrefixFrom(addr, max(blockBits(pool), pool.CIDR.Bits())).Masked()
}

func errOutside(addr netip.Addr) *ipam.Error {
	return &ipam.Error{Code: ipam.CodeOutsidePools, Object: model.Ref{Kind: "Address", Name: addr.String()},
		Detail: "it is in no IPPool", Hint: "ask for an address inside a pool, or create an IPPool that holds it"}
}
