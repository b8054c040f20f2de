package scenario

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var changes = flag.Int("changes", 40, "how many changes of policy TestTwoRoutersARack makes, one after another")

// change is one of them, and what both routers must then see: the block with
// just this community, or no block.
type change struct {
	kind, name, patch string
	community         string // of AS 65000; empty: none
	gone              bool
}

// policyChange is the i-th change: a filter marks the block, rejects it, is
// emptied; the communities of a prefix advertisement change by value and by
// name.
func policyChange(i int, block string) change {
	mark := fmt.Sprintf("65000:%d", i+1)
	filter := func(rules string) change {
		return change{kind: "bgpfilter", name: "changing", patch: `{"spec":{"exportV4":[` + rules + `]}}`}
	}
	advertise := func(communities, use string) change {
		return change{kind: "bgpconfiguration", name: "default", community: mark,
			patch: `{"spec":{"communities":` + communities + `,"prefixAdvertisements":[{"cidr":"10.244.0.0/16","communities":["` + use + `"]}]}}`}
	}
	switch i % 5 {
	case 0:
		c := filter(`{"action":"Accept","cidr":"10.244.0.0/16","matchOperator":"In","operations":[{"addCommunity":{"value":"` + mark + `"}}]}`)
		c.community = mark
		return c
	case 1:
		c := filter(`{"action":"Reject","cidr":"` + block + `","matchOperator":"Equal"}`)
		c.gone = true
		return c
	case 2:
		c := filter("")
		if i > 4 {
			c.community = fmt.Sprintf("65000:%d", i-2) // what was advertised last
		}
		return c
	case 3:
		return advertise("null", mark)
	default:
		return advertise(`[{"name":"blue","value":"`+mark+`"}]`, "blue")
	}
}

// manyChanges: each change of policy reaches both routers, and no session is
// reset.
func (r *redundant) manyChanges(t *testing.T, ctx context.Context) {
	v := r.rack1(t, ctx)
	r.kubectl(t, ctx, `{"apiVersion":"projectcalico.org/v3","kind":"BGPFilter","metadata":{"name":"changing"},"spec":{}}`, "apply", "-f", "-")
	for _, peer := range []string{"rack-r1", "second-r1"} {
		r.kubectl(t, ctx, "", "patch", "bgppeer.projectcalico.org", peer, "--type=merge", "-p", `{"spec":{"filters":["changing"]}}`)
	}
	r.await(t, ctx, "sessions", func() error { return v.settled(ctx) })
	before := v.history(t, ctx)
	var took []time.Duration
	for i := range *changes {
		c := policyChange(i, v.block)
		r.kubectl(t, ctx, "", "patch", c.kind+".projectcalico.org", c.name, "--type=merge", "-p", c.patch)
		began := time.Now()
		for {
			err := v.sees(ctx, c)
			if err == nil {
				break
			}
			if time.Since(began) > time.Minute {
				t.Fatalf("change %d, %s %s %s: %v", i, c.kind, c.name, c.patch, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("%d changes, from kubectl's end to what both routers show: median %s, 99th percentile %s, longest %s", len(took),
		took[len(took)/2].Round(time.Millisecond), took[len(took)*99/100].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	if after := v.history(t, ctx); after != before {
		t.Errorf("sessions before:\n%s\nafter:\n%s", before, after)
	}
}

// sees compares both routers' view with what a change must lead to.
func (v rack1) sees(ctx context.Context, c change) error {
	bird, err := v.birdRoute(ctx)
	if err != nil {
		return err
	}
	frr, has, err := v.frrRoute(ctx)
	if err != nil {
		return err
	}
	if c.gone {
		if bird != "" || has {
			return fmt.Errorf("BIRD still has %q, FRR: %v", bird, has)
		}
		return nil
	}
	want := ""
	if c.community != "" {
		want = "BGP.community: (" + strings.ReplaceAll(c.community, ":", ",") + ")\n"
	}
	if bird == "" || !has || frr.Community.String != c.community || !strings.Contains(bird, want) || want == "" && strings.Contains(bird, "BGP.community") {
		return fmt.Errorf("want community %q; FRR has %v %q, BIRD:\n%s", c.community, has, frr.Community.String, bird)
	}
	return nil
}

// birdFraction is the part of a second in BIRD's time of day: from one look to
// the next it differs by a millisecond.
var birdFraction = regexp.MustCompile(`\.\d+`)

// history is what tells a session from one that was made anew: at the agent, at
// BIRD and at FRR.
func (v rack1) history(t *testing.T, ctx context.Context) string {
	t.Helper()
	out, err := v.Machine("a1").Exec(ctx, filepath.Join(v.bin, "muslin-agent"), "status")
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Peers []struct {
			Address, State string
			Flaps          int
		}
	}
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatal(err)
	}
	session, err := v.birdSession(ctx)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(session, "\n") // name, state and since when
	first = birdFraction.ReplaceAllString(first, "")
	neighbor, err := v.frrSession(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("agent %+v\nBIRD %s\nFRR %d times established", s.Peers, first, neighbor.ConnectionsEstablished)
}
