package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// lookOften looks every 5 s at what always holds, until the returned function is
// called.
func (c *chaos) lookOften(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			c.sleep(ctx, 5*time.Second)
			c.look(ctx)
		}
	})
	return func() { cancel(); done.Wait() }
}

// look is at what holds while faults are made. That no address is in two pods is
// looked at whenever a pod gets one.
func (c *chaos) look(ctx context.Context) {
	c.LightCluster.mu.Lock()
	programs := map[string]running{}
	for name, r := range c.programs {
		programs[name] = r
	}
	c.LightCluster.mu.Unlock()
	for name, r := range programs {
		select {
		case <-r.ended:
			if c.stillMeant(name, r) {
				c.errorf("%s ended by itself: %s", name, r.cmd.ProcessState)
			}
		default:
		}
	}
	for _, node := range c.allNodes() {
		lines := c.logs.fresh(c.logOf(agentProgram, node))
		s, err := c.Agent(ctx, node)
		for _, line := range lines {
			c.evaluate(node, line, err != nil || len(s.Problems) > 0)
		}
	}
}

// evaluate looks at a line of an agent's log; excused tells that the agent shows a
// problem, or cannot be asked.
func (c *chaos) evaluate(node, line string, excused bool) {
	switch {
	case strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:"):
		c.errorf("the agent of %s: %s", node, line)
	case strings.Contains(line, "level=ERROR") && !excused:
		c.errorf("the agent of %s logs an error and shows no problem: %s", node, line)
	}
}

// stillMeant tells whether a program is one that nobody ended meanwhile.
func (c *chaos) stillMeant(name string, r running) bool {
	c.LightCluster.mu.Lock()
	defer c.LightCluster.mu.Unlock()
	return c.programs[name] == r
}

// logReader reads on where it stopped.
type logReader struct {
	mu   sync.Mutex
	read map[string]int64
}

// fresh are the whole lines of a file that are new.
func (l *logReader) fresh(path string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.read == nil {
		l.read = map[string]int64{}
	}
	file, err := os.Open(path)
	if err != nil {
		return nil // not written yet
	}
	defer file.Close()
	text, err := io.ReadAll(io.NewSectionReader(file, l.read[path], 1<<30))
	end := strings.LastIndexByte(string(text), '\n') + 1
	if err != nil || end == 0 {
		return nil
	}
	l.read[path] += int64(end)
	return strings.Split(string(text[:end-1]), "\n")
}

// settle waits until everything is as it should be with no fault about.
func (c *chaos) settle(t *testing.T, ctx context.Context, when string) {
	t.Helper()
	began := time.Now()
	if err := c.persist(ctx, func() error { return c.atRest(ctx) }); err != nil {
		c.errorf("%s: %v", when, err)
		return
	}
	c.logf("%s: at rest after %.1f s with %d pods", when, time.Since(began).Seconds(), len(c.livePods()))
}

// atRest names the first thing that is not as it should be.
func (c *chaos) atRest(ctx context.Context) error {
	for _, check := range []func(context.Context) error{c.endOrphans, c.agentsContent, c.podsPlugged, c.ownersAnnounce, c.allStored, c.allReached} {
		if err := check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// agentsContent: every agent waits for nothing and shows no problem.
func (c *chaos) agentsContent(ctx context.Context) error {
	for _, node := range c.allNodes() {
		s, err := c.Agent(ctx, node)
		if err != nil {
			return fmt.Errorf("agent of %s: %w", node, err)
		}
		if len(s.Waiting) > 0 || len(s.Problems) > 0 {
			return fmt.Errorf("agent of %s waits for %v and shows %v", node, s.Waiting, s.Problems)
		}
	}
	return nil
}

// podsPlugged: every pod that is to run has an address.
func (c *chaos) podsPlugged(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pods {
		if c.live[p.ip] != p {
			return fmt.Errorf("pod %s on %s has no address", p.name, p.node)
		}
	}
	return nil
}

// ownersAnnounce: the router of a rack has learned each block of its nodes from the
// block's owner, and no other block. Routers name who announced by its address.
func (c *chaos) ownersAnnounce(ctx context.Context) error {
	blocks, err := c.ipamBlocks(ctx)
	if err != nil {
		return err
	}
	owner := map[netip.Prefix]string{}
	for _, b := range blocks {
		owner[b.CIDR] = strings.TrimPrefix(b.Affinity, "host:")
	}
	for _, rack := range c.Topology().Racks {
		routes, err := c.Fabric.Routes(rack.Router)
		if err != nil {
			return err
		}
		announcer := map[netip.Prefix]netip.Addr{}
		for _, r := range routes {
			if r.Via.IsValid() && netip.MustParsePrefix("10.244.0.0/16").Contains(r.To.Addr()) {
				announcer[r.To] = r.Via
			}
		}
		for block, node := range owner {
			n, known := c.Topology().Node(node)
			if known && n.Rack == rack.Name && announcer[block] != c.addressOf(node) {
				return fmt.Errorf("%s has learned %s from %s, and its owner is %s, %s", rack.Router, block, announcer[block], node, c.addressOf(node))
			}
		}
		for prefix, from := range announcer {
			if _, known := owner[prefix]; !known && prefix.Bits() < 32 {
				return fmt.Errorf("%s has learned %s from %s, and IPAM has no such block", rack.Router, prefix, from)
			}
		}
	}
	return nil
}

// allStored: IPAM has the address of every pod, for that pod.
func (c *chaos) allStored(ctx context.Context) error {
	stored, err := c.storedPods(ctx)
	if err != nil {
		return err
	}
	for _, p := range c.livePods() {
		if stored[p.ip] != p.name {
			return fmt.Errorf("IPAM has %s for pod %q, and %s on %s has it", p.ip, stored[p.ip], p.name, p.node)
		}
	}
	return nil
}

// nothingStored: IPAM has no address of a pod.
func (c *chaos) nothingStored(ctx context.Context) error {
	stored, err := c.storedPods(ctx)
	if err != nil {
		return err
	}
	for ip, pod := range stored {
		if pod != "" {
			return fmt.Errorf("IPAM still has %s for pod %s", ip, pod)
		}
	}
	return nil
}

// allReached: every pod, and who is outside, reaches every pod.
func (c *chaos) allReached(ctx context.Context) error {
	const script = `for ip in "$@"; do ping -q -c 1 -W 2 $ip >/dev/null || echo $ip & done; wait`
	pods := c.livePods()
	argv := []string{"sh", "-c", script, "sh"}
	for _, p := range pods {
		argv = append(argv, p.ip.String())
	}
	out, err := c.Machine(c.Topology().Outside.Name).Exec(ctx, argv...)
	errs := []error{err, unreached("outside", out)}
	for _, p := range pods {
		out, err := c.Pod(p.node, "default", p.name).Exec(ctx, argv...)
		errs = append(errs, err, unreached(fmt.Sprintf("pod %s, %s on %s", p.name, p.ip, p.node), out))
	}
	return errors.Join(errs...)
}

func unreached(from string, out []byte) error {
	lost := strings.Fields(string(out))
	if len(lost) == 0 {
		return nil
	}
	slices.Sort(lost)
	return fmt.Errorf("%s does not reach %s", from, strings.Join(lost, ", "))
}
