package nft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/pkg/reconcile"
)

// DefaultResync is how often the table is read and compared again.
const DefaultResync = 90 * time.Second

// Options are the settings of a Reconciler.
type Options struct {
	NetNS  string        // path of the network namespace; empty: the process's own
	Resync time.Duration // 0: DefaultResync
	Logger *slog.Logger  // nil: slog.Default()
}

// Stats counts what was written since the start.
type Stats struct {
	Replaced int // times the whole table was written
	Chains   int // chains written and deleted besides
	Elements int // elements of sets added and removed besides
	Drift    int // notifications that somebody else changed the table
}

// Reconciler writes the table. Apply and Run may be called from different
// goroutines.
type Reconciler struct {
	*nl.Watch

	log    *slog.Logger
	resync time.Duration
	ns     *nl.NS
	events *nl.Listener

	apply  sync.Mutex // one Apply at a time
	conn   *nftables.Conn
	socket *netlink.Conn // conn's

	mu    sync.Mutex // guards what follows
	port  uint32     // netlink address of conn
	stale bool       // the kernel has to be read before it is believed
	have  kernel     // as long as it is not stale
	stats Stats
}

// New opens the sockets. Call Run to have drift noticed, Close at the end.
func New(o Options) (*Reconciler, error) {
	ns, err := nl.Open(o.NetNS)
	if err != nil {
		return nil, err
	}
	r := &Reconciler{
		log: o.Logger, resync: o.Resync, ns: ns,
		Watch: nl.NewWatch(), stale: true,
	}
	if r.log == nil {
		r.log = slog.Default()
	}
	if r.resync == 0 {
		r.resync = DefaultResync
	}
	if r.events, err = nl.Listen(ns, unix.NETLINK_NETFILTER, nil, unix.NFNLGRP_NFTABLES); err != nil {
		ns.Close()
		return nil, err
	}
	if err := r.dial(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// dial opens a lasting connection: its address tells our own notifications from
// those of others.
func (r *Reconciler) dial() error {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(r.ns.FD()),
		nftables.WithSockOptions(func(c *netlink.Conn) error {
			r.mu.Lock()
			r.socket, r.port = c, c.PID()
			r.mu.Unlock()
			// Room for one transaction, which is sent whole, and for the answers.
			return errors.Join(c.SetWriteBuffer(64<<20), c.SetReadBuffer(4<<20))
		}))
	if err != nil {
		return fmt.Errorf("open nftables socket: %w", err)
	}
	r.conn = conn
	return nil
}

// Close closes the sockets; the table stays.
func (r *Reconciler) Close() error {
	var err error
	if r.conn != nil {
		err = r.conn.CloseLasting()
	}
	r.events.Close()
	r.ns.Close()
	return err
}

// String names the task.
func (r *Reconciler) String() string { return "felix/nft" }

// Stats returns the counters.
func (r *Reconciler) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Apply makes the table that of s.Rules, in one transaction: chains whose rules
// and sets whose elements differ, or the whole table where it has other sets. As long as
// s.Rules.Complete is false a table that is there stays as it is.
func (r *Reconciler) Apply(ctx context.Context, s felix.State) error {
	r.apply.Lock()
	defer r.apply.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.events.Drain(r.event); err != nil {
		r.markStale()
	}
	want, err := compile(s.Rules)
	if err != nil {
		return fmt.Errorf("compile table inet %s: %w", felix.TableName, err)
	}
	if err := r.refresh(want); err != nil {
		return r.failed(fmt.Errorf("read table inet %s: %w", felix.TableName, err))
	}
	r.mu.Lock()
	have := r.have
	r.mu.Unlock()
	if have.there && !s.Rules.Complete {
		return nil
	}
	if have.shaped(want) {
		err = r.update(want, have)
	} else {
		err = r.replace(want)
	}
	if err != nil {
		return r.failed(fmt.Errorf("write table inet %s: %w", felix.TableName, err))
	}
	return nil
}

// failed starts over with a new connection: the old one may have answers of the
// failed transaction in it.
func (r *Reconciler) failed(err error) error {
	r.markStale()
	_ = r.conn.CloseLasting()
	return errors.Join(err, r.dial())
}

func (r *Reconciler) markStale() {
	r.mu.Lock()
	r.stale = true
	r.mu.Unlock()
}

// replace writes the whole table. The deletion and the new table are one
// transaction: no packet meets neither.
func (r *Reconciler) replace(p *program) error {
	if err := r.write(p, p.fill); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.have = p.written()
	r.stats.Replaced++
	return nil
}

// write makes what fill adds of a program one transaction.
func (r *Reconciler) write(p *program, fill func(*nftables.Conn) error) error {
	standIns := p.standIns()
	if len(standIns) == 0 {
		if err := fill(r.conn); err != nil {
			return err
		}
		return r.conn.Flush()
	}
	messages, err := capture(fill)
	if err != nil {
		return err
	}
	for _, e := range standIns {
		if err := exchange(messages, e); err != nil {
			return err
		}
	}
	return r.send(messages)
}

// fill adds what makes the table anew to a transaction.
func (p *program) fill(c *nftables.Conn) error {
	c.AddTable(p.table) // so that there is something to delete
	c.DelTable(p.table)
	c.AddTable(p.table)
	for _, s := range p.sets {
		if err := c.AddSet(s.Set, s.elements); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	p.fillChains(c, p.chains)
	return nil
}

// fillChains adds chains that are empty or not there.
func (p *program) fillChains(c *nftables.Conn, chains []*chain) {
	for _, ch := range chains {
		c.AddChain(ch.Chain)
	}
	for _, ch := range chains {
		for _, rule := range ch.rules {
			rule.Table, rule.Chain = p.table, ch.Chain
			c.AddRule(rule)
		}
	}
}

// written is what the kernel has once a program is.
func (p *program) written() kernel {
	k := kernel{there: true, chains: map[string]string{}, sets: map[string]map[string]nftables.SetElement{}}
	for _, s := range p.sets {
		k.sets[s.Name] = index(s.elements)
	}
	for _, c := range p.chains {
		k.chains[c.Name] = c.digest
	}
	return k
}

func index(elements []nftables.SetElement) map[string]nftables.SetElement {
	out := make(map[string]nftables.SetElement, len(elements))
	for _, e := range elements {
		k := string(e.Key) + string(e.KeyEnd) + string(e.Val)
		if e.IntervalEnd {
			k += "end" // it may be the start of the next interval, too
		}
		out[k] = nftables.SetElement{Key: e.Key, KeyEnd: e.KeyEnd, IntervalEnd: e.IntervalEnd, Val: e.Val}
	}
	return out
}

// update writes the chains and the elements that differ. All of it is one
// transaction: no packet misses a rule, nor an element of a map that gets another
// value.
func (r *Reconciler) update(p *program, have kernel) error {
	want := p.written()
	chains, elements := 0, 0
	fill := func(c *nftables.Conn) (err error) {
		chains = p.changeChains(c, have)
		elements, err = p.changeElements(c, have.sets, want.sets)
		return err
	}
	if p.same(have, want) {
		return nil
	}
	if err := r.write(p, fill); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.have = want
	r.stats.Chains += chains
	r.stats.Elements += elements
	return nil
}

// same reports whether there is nothing to write.
func (p *program) same(have, want kernel) bool {
	if !maps.Equal(have.chains, want.chains) {
		return false
	}
	for _, s := range p.sets {
		if s.differs(have.sets[s.Name], want.sets[s.Name]) {
			return false
		}
	}
	return true
}

// changeChains empties those that differ before it deletes any: one may lead to
// another.
func (p *program) changeChains(c *nftables.Conn, have kernel) (count int) {
	var write []*chain
	wanted := map[string]bool{}
	for _, ch := range p.chains {
		wanted[ch.Name] = true
		digest, there := have.chains[ch.Name]
		if there && digest == ch.digest {
			continue
		}
		if there {
			c.FlushChain(ch.Chain)
		}
		write = append(write, ch)
	}
	gone := slices.DeleteFunc(slices.Sorted(maps.Keys(have.chains)), func(name string) bool { return wanted[name] })
	for _, name := range gone {
		c.FlushChain(&nftables.Chain{Name: name, Table: p.table})
	}
	for _, name := range gone {
		c.DelChain(&nftables.Chain{Name: name, Table: p.table})
	}
	p.fillChains(c, write)
	return len(write) + len(gone)
}

// changeElements writes the sets whose elements differ.
func (p *program) changeElements(c *nftables.Conn, have, want map[string]map[string]nftables.SetElement) (count int, err error) {
	for _, s := range p.sets {
		if !s.differs(have[s.Name], want[s.Name]) {
			continue
		}
		d := compare(have[s.Name], want[s.Name])
		remove, add := values(d.Remove), values(d.Add)
		if !s.live {
			c.FlushSet(s.Set)
			remove, add = nil, s.elements
		}
		count += len(remove) + len(add)
		if len(remove) > 0 {
			err = errors.Join(err, c.SetDeleteElements(s.Set, remove))
		}
		if len(add) > 0 {
			err = errors.Join(err, c.SetAddElements(s.Set, add))
		}
		if err != nil {
			return count, fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	return count, nil
}

// differs compares a set with what it is to be.
func (s *set) differs(have, want map[string]nftables.SetElement) bool {
	if !s.live {
		return !sameElements(have, want)
	}
	d := compare(have, want)
	return len(d.Add)+len(d.Remove) > 0
}

// refresh reads the table when what we know of it is not to be believed.
func (r *Reconciler) refresh(want *program) error {
	r.mu.Lock()
	stale := r.stale
	// Cleared first: what happens from here on marks it again.
	r.stale = false
	r.mu.Unlock()
	if !stale {
		return nil
	}
	have, err := r.read(want)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.have = have
	return nil
}

// compare compares two lots of elements: an element is its key and value, so that
// none ever changes.
func compare(have, want map[string]nftables.SetElement) reconcile.Delta[string, nftables.SetElement] {
	same := func(_, _ nftables.SetElement) bool { return true }
	return reconcile.Diff(have, want, same, strings.Compare)
}

func values(in []reconcile.Entry[string, nftables.SetElement]) []nftables.SetElement {
	out := make([]nftables.SetElement, len(in))
	for i, e := range in {
		out[i] = e.Value
	}
	return out
}
