package scenario

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// upset is one thing that happens in a round of TestChaos. It begins some time
// after the round and, when it lasts, ends by itself.
type upset struct {
	at, lasts time.Duration // multiples of 100 ms
	kind      string        // a key of faultKinds
	on        string        // a node, a pod, or "-"
	with      string        // the other node, the number of a host in its rack, the pod's node, or "-"
}

func (f upset) String() string {
	return fmt.Sprintf("%s %s %s %s %s", f.at, f.lasts, f.kind, f.on, f.with)
}

func (f upset) until() time.Duration { return f.at + f.lasts }

// chaosRound is what happens until the next look at everything. Pods come and go
// as faults do: they are faults of a kubelet's making.
type chaosRound []upset

func (r chaosRound) length() time.Duration {
	var last time.Duration
	for _, f := range r {
		last = max(last, f.until())
	}
	return last
}

// chaosWindow is the time in which the faults of a round begin.
const chaosWindow = 20 * time.Second

// settleEstimate is what a look at everything takes, as far as a plan's length
// goes.
const settleEstimate = 10 * time.Second

// drawPlan draws rounds of faults that last about as long as duration together:
// equal arguments, equal plans. Faults of one round that touch the same thing do not
// overlap.
func drawPlan(seed uint64, duration time.Duration, racks [][]string) []chaosRound {
	d := drawer{Rand: rand.New(rand.NewPCG(seed, 0)), racks: racks}
	for _, rack := range racks {
		d.nodes = append(d.nodes, rack...)
	}
	var plan []chaosRound
	for left := duration; left > 0; {
		round := d.round(max(left, chaosWindow))
		plan = append(plan, round)
		left -= round.length() + settleEstimate
	}
	return plan
}

// drawer holds what later rounds depend on.
type drawer struct {
	*rand.Rand
	racks    [][]string
	nodes    []string
	pods     []string // that stay, as "pod node"
	made     int      // pods, ever
	numbered int      // nodes, ever
}

func (d *drawer) round(longest time.Duration) chaosRound {
	var round chaosRound
	taken := map[string][]upset{}
	for want := 3 + d.IntN(4); want > 0; want-- {
		for range 10 { // as often as it is tried to fit one in
			if f := d.fault(longest); free(taken, f) {
				for _, thing := range faultKinds[f.kind].touches(f) {
					taken[thing] = append(taken[thing], f)
				}
				round = append(round, f)
				break
			}
		}
	}
	round = append(round, d.podsOfRound(longest)...)
	slices.SortStableFunc(round, func(a, b upset) int { return cmp.Compare(a.at, b.at) })
	return round
}

// fault draws one, of each kind as often as its weight says.
func (d *drawer) fault(longest time.Duration) upset {
	names := sortedKinds()
	total := 0
	for _, name := range names {
		total += faultKinds[name].weight
	}
	pick := d.IntN(total)
	for _, name := range names {
		if pick -= faultKinds[name].weight; pick < 0 {
			return d.faultOf(name, longest)
		}
	}
	return upset{}
}

func (d *drawer) faultOf(name string, longest time.Duration) upset {
	kind := faultKinds[name]
	f := upset{at: d.within(0, chaosWindow), kind: name, on: "-", with: "-"}
	if kind.longest > 0 {
		f.lasts = d.lasting(kind.shortest, max(kind.shortest, min(kind.longest, longest-f.at)))
	}
	rack := d.racks[d.IntN(len(d.racks))]
	i := d.IntN(len(rack))
	if kind.ofNode {
		f.on = rack[i]
	}
	switch name {
	case "swapped":
		f.with = rack[(i+1)%len(rack)]
	case "renumbered":
		d.numbered++
		f.with = fmt.Sprint(50 + d.numbered%150)
	}
	return f
}

// podsOfRound has some pods come and stay, some come and go, and some that
// stayed go.
func (d *drawer) podsOfRound(longest time.Duration) []upset {
	var out []upset
	for range min(len(d.pods), d.IntN(4)) {
		i := d.IntN(len(d.pods))
		name, node, _ := strings.Cut(d.pods[i], " ")
		d.pods = slices.Delete(d.pods, i, i+1)
		out = append(out, upset{at: d.within(0, chaosWindow), kind: "pod-ends", on: name, with: node})
	}
	stay := 0
	if want := 3 * len(d.nodes); len(d.pods) < want {
		stay = min(want-len(d.pods), 2*len(d.nodes))
	}
	for i := range stay + 2 + d.IntN(4) {
		d.made++
		f := upset{at: d.within(0, chaosWindow), kind: "pod", on: fmt.Sprint("p", d.made), with: d.nodes[d.IntN(len(d.nodes))]}
		if i < stay {
			d.pods = append(d.pods, f.on+" "+f.with)
		} else {
			f.lasts = d.lasting(100*time.Millisecond, min(20*time.Second, longest-f.at))
		}
		out = append(out, f)
	}
	return out
}

func (d *drawer) within(from, to time.Duration) time.Duration {
	return (from + time.Duration(d.Int64N(int64(to-from)))).Round(100 * time.Millisecond)
}

// lasting draws short times as often as long ones, by their orders of magnitude.
func (d *drawer) lasting(from, to time.Duration) time.Duration {
	low, high := math.Log(float64(from)), math.Log(float64(max(from, to)))
	return time.Duration(math.Exp(low + d.Float64()*(high-low))).Round(100 * time.Millisecond)
}

// free tells that no fault that was taken touches what f does at the same time.
func free(taken map[string][]upset, f upset) bool {
	for _, thing := range faultKinds[f.kind].touches(f) {
		for _, other := range taken[thing] {
			if f.at <= other.until()+time.Second && other.at <= f.until()+time.Second {
				return false
			}
		}
	}
	return true
}

// writePlan has a line for each upset, and one before each round.
func writePlan(plan []chaosRound) string {
	var b strings.Builder
	for i, round := range plan {
		fmt.Fprintf(&b, "round %d\n", i+1)
		for _, f := range round {
			fmt.Fprintln(&b, f)
		}
	}
	return b.String()
}

// readPlan reads what writePlan wrote, or what somebody left of it.
func readPlan(r io.Reader) ([]chaosRound, error) {
	var plan []chaosRound
	for lines := bufio.NewScanner(r); lines.Scan(); {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) == 0:
		case words[0] == "round":
			plan = append(plan, nil)
		default:
			f, err := readFault(words)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", lines.Text(), err)
			}
			if len(plan) == 0 {
				plan = append(plan, nil)
			}
			plan[len(plan)-1] = append(plan[len(plan)-1], f)
		}
	}
	return plan, nil
}

func readFault(words []string) (f upset, err error) {
	if len(words) != 5 {
		return f, fmt.Errorf("%d words, want: at lasts kind on with", len(words))
	}
	if f.at, err = time.ParseDuration(words[0]); err != nil {
		return f, err
	}
	if f.lasts, err = time.ParseDuration(words[1]); err != nil {
		return f, err
	}
	f.kind, f.on, f.with = words[2], words[3], words[4]
	if _, known := faultKinds[f.kind]; !known {
		return f, fmt.Errorf("kind %q: want one of %v", f.kind, sortedKinds())
	}
	return f, nil
}

// TestChaosPlan: a seed is one plan, which reads back as it was written, with every
// kind of upset in an hour, and no two at once of one thing.
func TestChaosPlan(t *testing.T) {
	racks := [][]string{{"a1", "a2"}, {"b1", "b2"}}
	for seed := range uint64(10) {
		plan := drawPlan(seed, time.Hour, racks)
		text := writePlan(plan)
		if again := writePlan(drawPlan(seed, time.Hour, racks)); again != text {
			t.Fatalf("seed %d has two plans", seed)
		}
		read, err := readPlan(strings.NewReader(text))
		if err != nil || writePlan(read) != text {
			t.Fatalf("seed %d: the plan reads back otherwise: %v", seed, err)
		}
		drawn := drawnKinds(plan)
		for i, round := range plan {
			taken := map[string][]upset{}
			for _, f := range round {
				if !free(taken, f) {
					t.Errorf("seed %d, round %d: %s overlaps another", seed, i+1, f)
				}
				for _, thing := range faultKinds[f.kind].touches(f) {
					taken[thing] = append(taken[thing], f)
				}
			}
		}
		for _, kind := range sortedKinds() {
			if !drawn[kind] {
				t.Errorf("seed %d: no fault of kind %s in an hour", seed, kind)
			}
		}
	}
}

// TestChaosPlanOfMakeTest: what make test plays has nearly every kind of fault. When
// kinds or weights change, another seed may have to be the short one.
func TestChaosPlanOfMakeTest(t *testing.T) {
	drawn := drawnKinds(drawPlan(shortSeed, shortDuration, [][]string{{"a1", "a2"}, {"b1", "b2"}}))
	if most := len(faultKinds) - 2; len(drawn) < most {
		t.Errorf("%d kinds are drawn, want %d: %v", len(drawn), most, slices.Sorted(maps.Keys(drawn)))
	}
}

func drawnKinds(plan []chaosRound) map[string]bool {
	drawn := map[string]bool{}
	for _, round := range plan {
		for _, f := range round {
			drawn[f.kind] = true
		}
	}
	return drawn
}
