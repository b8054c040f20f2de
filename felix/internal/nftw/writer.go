package nftw

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/pkg/reconcile"
)

// DefaultResync is how often the table is read and compared again.
const DefaultResync = 90 * time.Second

// Options are the settings of a Writer.
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

// Writer writes the table. Apply and Run may be called from different
// goroutines.
type Writer struct {
	*nl.Watch

	name   string // of the table
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

// New opens the sockets for a table of the family inet. Call Run to have drift noticed, Close at the end.
func New(table string, o Options) (*Writer, error) {
	ns, err := nl.Open(o.NetNS)
	if err != nil {
		return nil, err
	}
	w := &Writer{
		name: table, log: cmp.Or(o.Logger, slog.Default()), resync: cmp.Or(o.Resync, DefaultResync), ns: ns,
		Watch: nl.NewWatch(), stale: true,
	}
	if w.events, err = nl.Listen(ns, unix.NETLINK_NETFILTER, nil, unix.NFNLGRP_NFTABLES); err != nil {
		ns.Close()
		return nil, err
	}
	if err := w.dial(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// dial opens a lasting connection: its address tells our own notifications from
// those of others.
func (w *Writer) dial() error {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(w.ns.FD()),
		nftables.WithSockOptions(func(c *netlink.Conn) error {
			w.mu.Lock()
			w.socket, w.port = c, c.PID()
			w.mu.Unlock()
			// Room for one transaction, which is sent whole, and for the answers.
			return errors.Join(c.SetWriteBuffer(64<<20), c.SetReadBuffer(4<<20))
		}))
	if err != nil {
		return fmt.Errorf("open nftables socket: %w", err)
	}
	w.conn = conn
	return nil
}

// Close closes the sockets; the table stays.
func (w *Writer) Close() error {
	var err error
	if w.conn != nil {
		err = w.conn.CloseLasting()
	}
	w.events.Close()
	w.ns.Close()
	return err
}

// String names the task.
func (w *Writer) String() string { return "nftables table inet " + w.name }

// Namespace is the network namespace of the table. It lives as long as the Writer.
func (w *Writer) Namespace() *nl.NS { return w.ns }

// Stats returns the counters.
func (w *Writer) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats
}

// There reports whether the kernel has the table, whoever wrote it.
func (w *Writer) There() bool {
	w.apply.Lock()
	defer w.apply.Unlock()
	t, err := w.conn.ListTableOfFamily(w.name, nftables.TableFamilyINet)
	return err == nil && t != nil
}

// attempts is how often a table is written as a difference before it is written as
// a whole.
const attempts = 2

// Apply makes the table want, in one transaction, and one before it for sets that its rules
// will need: chains whose rules and elements of sets that differ, or the whole table where its generation is another, or where the kernel
// refuses the difference. nil: no such table. As long as complete is false a table that
// is there stays as it is.
func (w *Writer) Apply(ctx context.Context, want *Table, complete bool) error {
	w.apply.Lock()
	defer w.apply.Unlock()
	var err error
	for range attempts {
		if err = w.approach(ctx, want, complete); err == nil || ctx.Err() != nil {
			return err
		}
	}
	if want == nil || !complete {
		return err
	}
	if err := w.replace(want); err != nil {
		return w.failed(fmt.Errorf("write table inet %s: %w", w.name, err))
	}
	return nil
}

// approach writes what differs from what the kernel has.
func (w *Writer) approach(ctx context.Context, want *Table, complete bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.events.Drain(w.event); err != nil {
		w.markStale()
	}
	if err := w.refresh(want); err != nil {
		return w.failed(fmt.Errorf("read table inet %s: %w", w.name, err))
	}
	w.mu.Lock()
	have := w.have
	w.mu.Unlock()
	if have.there && !complete {
		return nil
	}
	var err error
	switch {
	case want == nil:
		err = w.drop(have)
	case have.shaped(want):
		err = w.update(want, have)
	default:
		err = w.replace(want)
	}
	if err != nil {
		return w.failed(fmt.Errorf("write table inet %s: %w", w.name, err))
	}
	return nil
}

// failed starts over with a new connection: the old one may have answers of the
// failed transaction in it.
func (w *Writer) failed(err error) error {
	w.markStale()
	_ = w.conn.CloseLasting()
	return errors.Join(err, w.dial())
}

func (w *Writer) markStale() {
	w.mu.Lock()
	w.stale = true
	w.mu.Unlock()
}

// drop deletes the table.
func (w *Writer) drop(have kernel) error {
	if !have.there {
		return nil
	}
	w.conn.DelTable(NewTable(w.name).Table)
	if err := w.conn.Flush(); err != nil && !absent(err) {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.have = kernel{}
	w.stats.Replaced++
	return nil
}

// replace writes the whole table. The deletion and the new table are one
// transaction: no packet meets neither.
func (w *Writer) replace(t *Table) error {
	all := Change{Whole: true}
	t, renewed, err := t.renewed(all)
	if err != nil {
		return err
	}
	chains := slices.Collect(t.Chains.All())
	if err := w.write(chains, func(c *nftables.Conn) error { return t.fill(c, chains) }); err != nil {
		return err
	}
	w.mu.Lock()
	w.have = t.written()
	w.stats.Replaced++
	w.mu.Unlock()
	if !renewed || !slices.ContainsFunc(slices.Collect(t.Sets.All()), func(s *Set) bool { return s.Interval }) {
		return nil
	}
	return w.renewAgain(t, all)
}

// renewAgain writes the table that a change has renewed once more, for the sake of packets that met the new rules with the
// ranges of before: see update.
func (w *Writer) renewAgain(t *Table, c Change) error {
	have := t.written()
	t, _, err := t.renewed(c)
	if err != nil {
		return err
	}
	return w.difference(t, t.since(have))
}

// write makes what fill adds one transaction. chains are those that it adds.
func (w *Writer) write(chains []*Chain, fill func(*nftables.Conn) error) error {
	standIns := standIns(chains)
	if len(standIns) == 0 {
		if err := fill(w.conn); err != nil {
			return err
		}
		return w.conn.Flush()
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
	return w.send(messages)
}

// fill adds what makes the table anew to a transaction. Maps come last: their
// elements may lead to chains.
func (t *Table) fill(c *nftables.Conn, chains []*Chain) error {
	c.AddTable(t.Table) // so that there is something to delete
	c.DelTable(t.Table)
	c.AddTable(t.Table)
	for s := range t.Sets.All() {
		var elements []nftables.SetElement
		if !s.leads() {
			elements = s.Elements.All()
		}
		if err := c.AddSet(s.Set, elements); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	t.fillChains(c, chains)
	for s := range t.Sets.All() {
		if s.leads() && len(s.Elements.All()) > 0 {
			if err := c.SetAddElements(s.Set, s.Elements.All()); err != nil {
				return fmt.Errorf("map %s: %w", s.Name, err)
			}
		}
	}
	return nil
}

// halves reports whether the ends of intervals are elements of their own.
func (s *Set) halves() bool { return s.Interval && !s.Concatenation }

// leads reports whether the elements are verdicts.
func (s *Set) leads() bool { return s.IsMap && s.DataType.Name == nftables.TypeVerdict.Name }

// fillChains adds chains that are empty or not there.
func (t *Table) fillChains(c *nftables.Conn, chains []*Chain) {
	for _, ch := range chains {
		c.AddChain(ch.Chain)
	}
	for _, ch := range chains {
		for _, rule := range ch.Rules {
			r := *rule // the library notes in it where the kernel has put it
			r.Table, r.Chain = t.Table, ch.Chain
			c.AddRule(&r)
		}
	}
}

// written is what the kernel has once a table is.
func (t *Table) written() kernel { return kernel{true, t.Chains, t.Sets} }

// index gives elements by key and value. Those of an interval set are one for each
// interval, and KeyEnd is where it ends.
func (s *Set) index(elements []nftables.SetElement) map[string]nftables.SetElement {
	out := make(map[string]nftables.SetElement, len(elements))
	for i, e := range elements {
		if e.IntervalEnd {
			continue
		}
		if s.halves() && i+1 < len(elements) && elements[i+1].IntervalEnd {
			e.KeyEnd = elements[i+1].Key
		}
		k := string(e.Key) + string(e.KeyEnd) + valueOf(e)
		out[k] = nftables.SetElement{Key: e.Key, KeyEnd: e.KeyEnd, Val: e.Val, VerdictData: e.VerdictData}
	}
	return out
}

// valueOf is the value of an element as it is compared. Verdicts are read back as
// the attributes that they were written as.
func valueOf(e nftables.SetElement) string {
	if e.VerdictData != nil {
		return strconv.Itoa(int(e.VerdictData.Kind)) + e.VerdictData.Chain
	}
	return string(e.Val)
}

// since gives what to remove from a set that the kernel has, and what to add.
func (s *Set) since(have *Set) (remove, add []nftables.SetElement) {
	if s == have {
		return nil, nil
	}
	if remove, add, known := s.Elements.Since(have.Elements); known {
		return remove, add
	}
	// An element is its key and value, so that none ever changes.
	same := func(_, _ nftables.SetElement) bool { return true }
	d := reconcile.Diff(s.index(have.Elements.All()), s.index(s.Elements.All()), same, strings.Compare)
	return s.written(d.Remove), s.written(d.Add)
}

// written gives the elements of an index as they are written.
func (s *Set) written(in []reconcile.Entry[string, nftables.SetElement]) []nftables.SetElement {
	out := make([]nftables.SetElement, 0, len(in))
	for _, e := range in {
		v := e.Value
		if s.halves() && v.KeyEnd != nil {
			out = append(out, nftables.SetElement{Key: v.Key}, nftables.SetElement{Key: v.KeyEnd, IntervalEnd: true})
			continue
		}
		out = append(out, v)
	}
	return out
}

// update writes the chains and the elements that differ. All of it is one
// transaction: no packet misses a rule, nor an element of a map that gets another
// value. New sets of intervals come in one before it. The kernel shows what is in such
// a set a moment after the rules of the same transaction: packets that an allowing rule
// was to find there would be dropped, and those of a denying one let through.
func (w *Writer) update(t *Table, have kernel) error {
	d := t.since(have)
	if d.empty() {
		return w.difference(t, d)
	}
	t, renewed, err := t.renewed(d.change())
	if err != nil {
		return err
	}
	if renewed {
		d = t.since(have)
	}
	if err := w.difference(t, d); err != nil || !renewed || !d.rangesChange() {
		return err
	}
	return w.renewAgain(t, d.change())
}

// difference writes what makes a table t.
func (w *Writer) difference(t *Table, d difference) error {
	if first := d.withIntervals(); len(first) > 0 {
		if err := w.write(nil, func(c *nftables.Conn) error { return addSets(c, first) }); err != nil {
			return err
		}
		d.newSets = slices.DeleteFunc(d.newSets, func(s *Set) bool { return slices.Contains(first, s) })
	}
	if !d.empty() {
		if err := w.write(d.write, func(c *nftables.Conn) error { return t.change(c, d) }); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.have = t.written()
	w.stats.Chains += len(d.write) + len(d.goneChains)
	w.stats.Elements += d.elements
	return nil
}

// renewed gives the table that is to be written for a change of it, and whether that is another.
func (t *Table) renewed(c Change) (*Table, bool, error) {
	if t.Renew == nil {
		return t, false, nil
	}
	next, err := t.Renew(c)
	if err != nil || next == nil {
		return t, false, err
	}
	return next, true, nil
}

// change names what of the kernel's table becomes another.
func (d difference) change() (c Change) {
	for _, ch := range d.flush {
		c.Rewritten = append(c.Rewritten, ch.Name)
	}
	for _, s := range d.sets {
		if len(s.remove) > 0 {
			c.Less = append(c.Less, s.Name)
		}
		if len(s.add) > 0 {
			c.More = append(c.More, s.Name)
		}
	}
	return c
}

// rangesChange reports whether sets of intervals that are there get other ones.
func (d difference) rangesChange() bool {
	return slices.ContainsFunc(d.sets, func(s changedSet) bool { return s.Interval })
}

// difference is the way from what the kernel has to what is wanted.
type difference struct {
	newSets, goneSets []*Set
	sets              []changedSet
	write             []*Chain // new ones, and
	flush             []*Chain // those that have other rules
	goneChains        []*Chain
	elements          int // that come and go
}

type changedSet struct {
	*Set
	remove, add []nftables.SetElement
}

// withIntervals gives the new sets whose elements are intervals, or a field of them.
func (d difference) withIntervals() []*Set {
	return slices.DeleteFunc(slices.Clone(d.newSets), func(s *Set) bool { return !s.Interval || s.leads() })
}

func (d difference) empty() bool {
	return len(d.newSets)+len(d.goneSets)+len(d.sets)+len(d.write)+len(d.goneChains) == 0
}

// since compares a table with what the kernel has.
func (t *Table) since(have kernel) difference {
	var d difference
	for was, is := range t.Sets.Since(have.sets) {
		switch {
		case is == nil:
			d.goneSets = append(d.goneSets, *was)
		case was == nil:
			d.newSets = append(d.newSets, *is)
			d.elements += len((*is).Elements.All())
		default:
			if remove, add := (*is).since(*was); len(remove)+len(add) > 0 {
				d.sets = append(d.sets, changedSet{*is, remove, add})
				d.elements += len(remove) + len(add)
			}
		}
	}
	for was, is := range t.Chains.Since(have.chains) {
		switch {
		case is == nil:
			d.goneChains = append(d.goneChains, *was)
		case was == nil:
			d.write = append(d.write, *is)
		case (*was).digest != (*is).digest:
			d.flush, d.write = append(d.flush, *is), append(d.write, *is)
		}
	}
	return d
}

// change adds a difference to a transaction: sets before the rules that refer to them,
// chains before what leads to them, and what is gone last.
func (t *Table) change(c *nftables.Conn, d difference) error {
	if err := addSets(c, d.newSets); err != nil {
		return err
	}
	for _, ch := range d.flush {
		c.FlushChain(ch.Chain)
	}
	t.fillChains(c, d.write)
	for _, s := range d.sets {
		var errs [2]error
		if len(s.remove) > 0 {
			errs[0] = c.SetDeleteElements(s.Set.Set, s.remove)
		}
		if len(s.add) > 0 {
			errs[1] = c.SetAddElements(s.Set.Set, s.add)
		}
		if err := errors.Join(errs[:]...); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	// Nothing leads to chains that are gone but one of them to another.
	for _, ch := range d.goneChains {
		c.FlushChain(&nftables.Chain{Name: ch.Name, Table: t.Table})
	}
	for _, ch := range d.goneChains {
		c.DelChain(&nftables.Chain{Name: ch.Name, Table: t.Table})
	}
	for _, s := range d.goneSets {
		c.DelSet(&nftables.Set{Name: s.Name, Table: t.Table})
	}
	return nil
}

func addSets(c *nftables.Conn, sets []*Set) error {
	for _, s := range sets {
		if err := c.AddSet(s.Set, s.Elements.All()); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	return nil
}

// refresh reads the table when what we know of it is not to be believed.
func (w *Writer) refresh(want *Table) error {
	w.mu.Lock()
	stale := w.stale
	// Cleared first: what happens from here on marks it again.
	w.stale = false
	w.mu.Unlock()
	if !stale {
		return nil
	}
	have, err := w.read(want)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.have = have
	return nil
}

// Remove deletes the table in the namespace at path netns (empty: the process's
// own) and reports whether there was one. Tables of others stay.
func Remove(table, netns string) (bool, error) {
	w, err := New(table, Options{NetNS: netns})
	if err != nil {
		return false, err
	}
	_, err = w.conn.ListTableOfFamily(table, nftables.TableFamilyINet)
	if absent(err) {
		return false, w.Close()
	}
	if err == nil {
		err = w.drop(kernel{there: true})
	}
	if err != nil {
		err = fmt.Errorf("delete table inet %s: %w", table, err)
	}
	return err == nil, errors.Join(err, w.Close())
}
