package explain

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/pkg/model"
)

// Class is what is broken, in one word.
type Class string

// The classes, in the order in which they are looked for.
const (
	NotAssigned   Class = "NotAssigned"   // nobody has the address
	PodNotRunning Class = "PodNotRunning" // its pod has ended, or has not begun
	StaleOwner    Class = "StaleOwner"    // block and affinity name different nodes, or one that is gone
	AgentDown     Class = "AgentDown"     // the owner's or the asker's agent does not answer
	PodUnplugged  Class = "PodUnplugged"  // the owner has no route to its own pod
	NotExported   Class = "NotExported"   // the pool says disableBGPExport
	FilterRejects Class = "FilterRejects" // a BGPFilter, on the way out or in
	PeerDown      Class = "PeerDown"      // the session's other end does not answer
	WrongAS       Class = "WrongAS"       // the other end has another AS number
	WrongPassword Class = "WrongPassword" // the other end is there and ignores us
	NotLearned    Class = "NotLearned"    // announced, and not arrived
	NotComputed   Class = "NotComputed"   // no BGP, and no route from IPAM
	TunnelMissing Class = "TunnelMissing" // the tunnel device is not there
	NotInstalled  Class = "NotInstalled"  // wanted, and not in the kernel
	Shadowed      Class = "Shadowed"      // somebody else's route is used
	LinkDown      Class = "LinkDown"      // the route leads over a link without carrier
	Unresolved    Class = "Unresolved"    // the next hop has no neighbour entry
	PolicyDenies  Class = "PolicyDenies"  // network policy drops it, at either end
	Dropped       Class = "Dropped"       // a chain with policy drop, and no answer
	MTUTooSmall   Class = "MTUTooSmall"   // small packets pass, large ones do not
	NoAnswer      Class = "NoAnswer"      // everything is as it should be, but no answer
)

// Facts are what was found out.
type Facts struct {
	To    netip.Addr
	Pod   *Pod   // who uses the address; nil: nobody
	Block *Block // nil: no block holds the address
	Pools []model.Pool
	Nodes map[model.NodeName]bool
	Owner *nodeview.View // of the node that has the pod; nil: no answer
	From  *nodeview.View // of the asker; nil: no answer
	// FromNode is the asker, OwnerError and FromError why an agent does not answer.
	FromNode              model.NodeName
	OwnerError, FromError string
	Path                  *nodeview.Path // from the asker to the address
	// Policy is network policy between the asker, a pod or the address that its probe
	// has, and the address; nil: not asked for. PolicyError says why it is not known.
	Policy      *Evaluation
	PolicyError string
	// Reach has, by address of a peer whose session is down, what it answers to
	// the owner; FromReach, to the asker.
	Reach, FromReach map[netip.Addr]Answer
}

// Answer is what a peer answers whose session is down.
type Answer struct {
	Echo bool // to an ICMP echo
	// Refused: it opens BGP, and is refused with a notification each time. Only
	// what its OPEN says of itself can be the reason (RFC 4271 section 6.2).
	Refused bool
}

// Pod is the pod that has the address.
type Pod struct {
	Namespace, Name string
	Node            model.NodeName
	Phase           string
}

// Block is the block that holds the address, with all affinities of it.
type Block struct {
	CIDR       netip.Prefix
	Node       model.NodeName
	Handle     string
	Assigned   bool
	Affinities map[model.NodeName]model.BlockState
}

// Step is one link of the chain.
type Step struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`
}

// Story is what is told.
type Story struct {
	To     netip.Addr `json:"to"`
	From   string     `json:"from"`
	Steps  []Step     `json:"steps"`
	Broken Class      `json:"broken,omitempty"`
	Object string     `json:"object,omitempty"` // what to change
	Fix    string     `json:"fix,omitempty"`
	Good   string     `json:"-"` // what is said when nothing is broken
}

// Text is the story for people.
func (s Story) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s from %s\n", s.To, s.From)
	for _, st := range s.Steps {
		mark := "ok    "
		if !st.OK {
			mark = "BROKEN"
		}
		fmt.Fprintf(&b, "  %s  %-10s %s\n", mark, st.Name, st.Text)
	}
	if s.Broken == "" {
		b.WriteString("  " + s.Good + "\n")
		return b.String()
	}
	fmt.Fprintf(&b, "  %s: %s\n  change: %s\n", s.Broken, s.Fix, s.Object)
	return b.String()
}

// builder builds a Story and stops at the first broken link.
type builder struct {
	Facts
	story Story
}

func (t *builder) ok(name, format string, args ...any) {
	t.story.Steps = append(t.story.Steps, Step{name, true, fmt.Sprintf(format, args...)})
}

// broken ends the story; it returns false, as every link does that is.
func (t *builder) broken(name string, c Class, object, fix, format string, args ...any) bool {
	t.story.Steps = append(t.story.Steps, Step{name, false, fmt.Sprintf(format, args...)})
	t.blame(c, object, fix)
	return false
}

func (t *builder) blame(c Class, object, fix string) {
	t.story.Broken, t.story.Object, t.story.Fix = c, object, fix
}

// Tell walks the links in order.
func Tell(f Facts) Story {
	t := &builder{Facts: f, story: Story{To: f.To, From: "node " + string(f.FromNode), Good: "reachable"}}
	for _, link := range []func() bool{t.address, t.block, t.owner, t.pool, t.announced, t.asker, t.tunnel, t.learned, t.fib, t.neighbour, t.policy, t.probe} {
		if !link() {
			break
		}
	}
	return t.story
}
