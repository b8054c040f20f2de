package gobgp

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"

	"github.com/muslin-net/muslin/bgp"
)

// A change that comes alone is told at once, and once.
func TestPaceOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reported := 0
		p := newDebouncer(func() { reported++ })
		for i := range 3 {
			p.changed(1, 50000)
			if reported != i+1 {
				t.Fatalf("change %d: told %d times", i+1, reported)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if reported != i+1 {
				t.Fatalf("a second after change %d: told %d times", i+1, reported)
			}
		}
	})
}

// A burst is told of when it begins and when it is over; while it lasts, after
// every so many changes, and never later than its longest stretch.
func TestPaceOfABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pending, reported := 0, []int(nil)
		p := newDebouncer(func() {
			reported = append(reported, pending)
			pending = 0
		})
		const burst, each = 100 * time.Millisecond, 100 * time.Microsecond
		sum := 0
		for range burst / each { // 1000 changes
			pending++
			sum++
			p.changed(pending, 5000)
			time.Sleep(each)
		}
		time.Sleep(10 * settle)
		synctest.Wait()
		got := 0
		for _, n := range reported {
			got += n
		}
		if reported[0] != 1 || got != sum || pending != 0 {
			t.Errorf("told of %v: %d of %d changes, %d left", reported, got, sum, pending)
		}
		if most := int(burst/(longest+5000*longestEach)) + 3; len(reported) > most {
			t.Errorf("told %d times, want at most %d: %v", len(reported), most, reported)
		}
	})
}

// A change that comes soon after a burst is taken for a part of it, and told
// when nothing follows.
func TestPaceAfterABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reported := 0
		p := newDebouncer(func() { reported++ })
		const routes = 50000
		p.changed(1, routes)
		p.changed(most, routes)
		time.Sleep(20 * time.Millisecond) // the timer has run out, twice
		synctest.Wait()
		reported = 0
		p.changed(1, routes)
		if reported != 0 {
			t.Fatal("a stalled burst was told of at once")
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if reported != 1 {
			t.Fatalf("told %d times", reported)
		}
	})
}

// Each stall that was taken for the end of a burst makes the next one wait longer,
// until a change comes alone again.
func TestPaceOfABurstThatStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reported := 0
		p := newDebouncer(func() { reported++ })
		waits := func() (d time.Duration) {
			for start, before := time.Now(), reported; reported == before; d = time.Since(start) {
				time.Sleep(settle / 10)
				synctest.Wait()
			}
			return d
		}
		p.changed(1, 1)
		for i, times := range []int{2, 4, mostPatience, mostPatience} {
			want := time.Duration(times) * settle
			time.Sleep(p.patience() + settle/2) // over, as it seems
			synctest.Wait()
			p.changed(1, 1)
			if got := waits(); got < want || got > want+settle {
				t.Errorf("stall %d: told after %v, want %v", i, got, want)
			}
		}
		time.Sleep(time.Second)
		p.changed(1, 1)
		p.changed(1, 1)
		if got := waits(); got < settle || got > 5*settle/2 { // a wait in which it changed, and one in which not
			t.Errorf("after a second: told after %v, want %v", got, settle)
		}
		time.Sleep(time.Second)
	})
}

// A part of a burst that is large enough is told at once.
func TestPaceOfALargePart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reported := 0
		p := newDebouncer(func() { reported++ })
		p.changed(1, fewest)
		p.changed(fewest-1, fewest)
		if reported != 1 {
			t.Fatalf("a small part: told %d times", reported)
		}
		p.changed(fewest, fewest)
		if reported != 2 {
			t.Fatalf("the smallest part: told %d times", reported)
		}
		p.changed(fewest+1, fewest)
		if reported != 2 {
			t.Fatalf("before anybody has looked: told %d times", reported)
		}
		p.checked()
		p.changed(fewest+1, fewest) // as much again, in one event
		if reported != 3 {
			t.Fatalf("the same again, after a look: told %d times", reported)
		}
		p.checked()
		p.changed(1, 1000000)
		p.changed(most-1, 1000000)
		p.changed(most, 1000000)
		if reported != 4 {
			t.Fatalf("the largest part: told %d times", reported)
		}
		time.Sleep(time.Second)
	})
}

// What changes while nobody asks takes no more room than the routes.
func TestDirtyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLearned(func() {})
		sub := l.subscribe()
		sub.listed(nil)
		l.snapshot(&bgp.Config{})
		for i := range 10 * most {
			sub.paths([]*apiutil.Path{pathOf(t, "10.0.0.0/26", "10.9.0.1", i%2 == 1)})
		}
		if len(l.dirty) > 2*most {
			t.Errorf("%d marks for one prefix", len(l.dirty))
		}
		sub.paths([]*apiutil.Path{pathOf(t, "10.0.0.0/26", "10.9.0.1", false)})
		got := l.snapshot(&bgp.Config{})
		if len(got) != 1 || got[0].NextHops[0] != netip.MustParseAddr("10.9.0.1") {
			t.Errorf("%+v", got)
		}
		time.Sleep(time.Second)
	})
}
