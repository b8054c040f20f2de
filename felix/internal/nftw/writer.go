package nftw

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
		name: table, log: o.Logger, resync: o.Resync, ns: ns,
		Watch: nl.NewWatch(), stale: true,
	}
	if w.log == nil {
		w.log = slog.Default()
	}
	if w.resync == 0 {
		w.resync = DefaultResync
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

// attempts is how often a table is written as a difference before it is written as
// a whole.
const attempts = 2

// Apply makes the table want, in one transaction: chains whose rules and elements of sets
// that differ, or the whole table where its generation is another, or where the kernel
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
	if err := w.write(t, t.fill); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.have = t.written()
	w.stats.Replaced++
	return nil
}

// write makes what fill adds of a table one transaction.
func (w *Writer) write(t *Table, fill func(*nftables.Conn) error) error {
	standIns := t.standIns()
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
func (t *Table) fill(c *nftables.Conn) error {
	c.AddTable(t.Table) // so that there is something to delete
	c.DelTable(t.Table)
	c.AddTable(t.Table)
	for _, s := range t.Sets {
		elements := s.Elements
		if s.leads() {
			elements = nil
		}
		if err := c.AddSet(s.Set, elements); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	t.fillChains(c, t.Chains)
	for _, s := range t.Sets {
		if s.leads() && len(s.Elements) > 0 {
			if err := c.SetAddElements(s.Set, s.Elements); err != nil {
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
			rule.Table, rule.Chain = t.Table, ch.Chain
			c.AddRule(rule)
		}
	}
}

// written is what the kernel has once a table is.
func (t *Table) written() kernel {
	k := kernel{there: true, chains: map[string]string{}, sets: map[string]*Set{}}
	for _, s := range t.Sets {
		k.sets[s.Name] = s
	}
	for _, c := range t.Chains {
		k.chains[c.Name] = c.digest
	}
	return k
}

// index gives the elements by key and value. Those of an interval set are one for each
// interval, and KeyEnd is where it ends.
func (s *Set) index() map[string]nftables.SetElement {
	if s.elements == nil {
		s.elements = make(map[string]nftables.SetElement, len(s.Elements))
		for i, e := range s.Elements {
			if e.IntervalEnd {
				continue
			}
			if s.halves() && i+1 < len(s.Elements) && s.Elements[i+1].IntervalEnd {
				e.KeyEnd = s.Elements[i+1].Key
			}
			k := string(e.Key) + string(e.KeyEnd) + valueOf(e)
			s.elements[k] = nftables.SetElement{Key: e.Key, KeyEnd: e.KeyEnd, Val: e.Val, VerdictData: e.VerdictData}
		}
	}
	return s.elements
}

// valueOf is the value of an element as it is compared. Verdicts are read back as
// the attributes that they were written as.
func valueOf(e nftables.SetElement) string {
	if e.VerdictData != nil {
		return strconv.Itoa(int(e.VerdictData.Kind)) + e.VerdictData.Chain
	}
	return string(e.Val)
}

// update writes the chains and the elements that differ. All of it is one
// transaction: no packet misses a rule, nor an element of a map that gets another
// value.
func (w *Writer) update(t *Table, have kernel) error {
	want := t.written()
	if t.same(have, want) {
		return nil
	}
	chains, elements := 0, 0
	if err := w.write(t, func(c *nftables.Conn) (err error) {
		if elements, err = t.newSets(c, have); err != nil {
			return err
		}
		chains = t.changeChains(c, have)
		n, err := t.changeElements(c, have)
		elements += n
		chains += t.dropChains(c, have)
		t.dropSets(c, have)
		return err
	}); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.have = want
	w.stats.Chains += chains
	w.stats.Elements += elements
	return nil
}

// same reports whether there is nothing to write.
func (t *Table) same(have, want kernel) bool {
	if !maps.Equal(have.chains, want.chains) || len(have.sets) != len(want.sets) {
		return false
	}
	return !slices.ContainsFunc(t.Sets, func(s *Set) bool { return have.sets[s.Name] == nil || s.differs(have.sets[s.Name]) })
}

// newSets adds the sets that are not there; rules refer to them.
func (t *Table) newSets(c *nftables.Conn, have kernel) (count int, err error) {
	for _, s := range t.Sets {
		if have.sets[s.Name] != nil {
			continue
		}
		if err := c.AddSet(s.Set, s.Elements); err != nil {
			return count, fmt.Errorf("set %s: %w", s.Name, err)
		}
		count += len(s.Elements)
	}
	return count, nil
}

// changeChains writes the chains that differ.
func (t *Table) changeChains(c *nftables.Conn, have kernel) int {
	var write []*Chain
	for _, ch := range t.Chains {
		digest, there := have.chains[ch.Name]
		if there && digest == ch.digest {
			continue
		}
		if there {
			c.FlushChain(ch.Chain)
		}
		write = append(write, ch)
	}
	t.fillChains(c, write)
	return len(write)
}

// dropChains deletes the chains that are not wanted: nothing leads to them any
// more but one of them to another.
func (t *Table) dropChains(c *nftables.Conn, have kernel) int {
	gone := maps.Clone(have.chains)
	for _, ch := range t.Chains {
		delete(gone, ch.Name)
	}
	names := slices.Sorted(maps.Keys(gone))
	for _, name := range names {
		c.FlushChain(&nftables.Chain{Name: name, Table: t.Table})
	}
	for _, name := range names {
		c.DelChain(&nftables.Chain{Name: name, Table: t.Table})
	}
	return len(names)
}

// dropSets deletes the sets that no rule refers to any more.
func (t *Table) dropSets(c *nftables.Conn, have kernel) {
	gone := maps.Clone(have.sets)
	for _, s := range t.Sets {
		delete(gone, s.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(gone)) {
		c.DelSet(&nftables.Set{Name: name, Table: t.Table})
	}
}

// changeElements writes the sets whose elements differ.
func (t *Table) changeElements(c *nftables.Conn, have kernel) (count int, err error) {
	for _, s := range t.Sets {
		old := have.sets[s.Name]
		if old == nil || !s.differs(old) {
			continue
		}
		d := compare(old.index(), s.index())
		remove, add := s.written(d.Remove), s.written(d.Add)
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

// differs compares a set with what the kernel has.
func (s *Set) differs(have *Set) bool {
	if s == have {
		return false
	}
	d := compare(have.index(), s.index())
	return len(d.Add)+len(d.Remove) > 0
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

// compare compares two lots of elements: an element is its key and value, so that
// none ever changes.
func compare(have, want map[string]nftables.SetElement) reconcile.Delta[string, nftables.SetElement] {
	same := func(_, _ nftables.SetElement) bool { return true }
	return reconcile.Diff(have, want, same, strings.Compare)
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
