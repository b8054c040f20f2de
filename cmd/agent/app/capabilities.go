package app

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// capability is one that the DaemonSet grants (capabilities(7)), and what is not
// there without it. One that is vital cannot be left out: the agent does nothing.
type capability struct {
	bit           uint
	name, without string
	vital         bool
}

var capabilities = []capability{
	{unix.CAP_NET_ADMIN, "NET_ADMIN", "the agent can write no link, route or rule", true},
	{unix.CAP_NET_RAW, "NET_RAW", "no router advertisements to unnumbered BGP peers, and no echoes of muslinctl explain", false},
	{unix.CAP_SYS_ADMIN, "SYS_ADMIN", "the agent cannot enter the network namespace of a pod", true},
	{unix.CAP_NET_BIND_SERVICE, "NET_BIND_SERVICE", "BGP cannot listen on port 179, nor on another privileged one", false},
}

// leftOut is what a list of MUSLIN_WITHOUT_CAPABILITIES comes to.
type leftOut struct {
	missing  []capability // lacking, and not on purpose
	accepted []capability // lacking on purpose
	wrong    []string     // what is wrong with entries of the list
}

// compareCapabilities compares a set of capabilities with the list of those that
// are left out on purpose: their names as capabilities(7) and Kubernetes have them,
// in upper or lower case.
func compareCapabilities(set uint64, list []string) (out leftOut) {
	named := map[string]bool{}
	for _, entry := range list {
		name := strings.TrimPrefix(strings.ToUpper(entry), "CAP_")
		if named[name] {
			continue
		}
		named[name] = true
		i := slices.IndexFunc(capabilities, func(c capability) bool { return c.name == name })
		switch {
		case i < 0:
			out.wrong = append(out.wrong, fmt.Sprintf("%q is no capability that the agent is granted: have NET_RAW, NET_BIND_SERVICE", entry))
		case capabilities[i].vital:
			out.wrong = append(out.wrong, fmt.Sprintf("%s cannot be left out: without it %s", name, capabilities[i].without))
		case set&(1<<capabilities[i].bit) != 0:
			out.wrong = append(out.wrong, fmt.Sprintf("%s is granted after all: take it from container agent of DaemonSet muslin-agent, or from the list", name))
		}
	}
	for _, c := range capabilities {
		switch {
		case set&(1<<c.bit) != 0:
		case named[c.name] && !c.vital:
			out.accepted = append(out.accepted, c)
		default:
			out.missing = append(out.missing, c)
		}
	}
	return out
}

// effective is the set of this thread's capabilities, which all have of a process
// that never changed them.
func effective() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("read own capabilities: %w", err)
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), nil
}

// checkCapabilities makes a problem of the node of each that is missing, and of what
// is wrong in the list of those that are to be, and says whether one is missing.
func (a *agent) checkCapabilities(set uint64) (lacking bool) {
	compared := compareCapabilities(set, a.cfg.WithoutCapabilities)
	var problems []model.Problem
	for _, c := range compared.missing {
		problems = append(problems, nodeProblem(a.cfg.Node, "securityContext.capabilities", "CapabilityMissing",
			fmt.Sprintf("capability %s is missing: %s; grant it to container agent of DaemonSet muslin-agent", c.name, c.without)))
	}
	for _, wrong := range compared.wrong {
		problems = append(problems, nodeProblem(a.cfg.Node, "MUSLIN_WITHOUT_CAPABILITIES", "CapabilityNotLeftOut", "MUSLIN_WITHOUT_CAPABILITIES: "+wrong))
	}
	for _, c := range compared.accepted {
		a.without = append(a.without, c.name+": "+c.without)
		a.log.Info("a capability is left out on purpose", "capability", c.name, "without", c.without)
	}
	a.own.capabilities.set(problems)
	return len(compared.missing) > 0
}

// powerless is what is left of the agent when the kernel refuses it what it cannot
// begin without: it says so where its owner looks, which is /readyz, the log and the
// node's condition MuslinProblem, and touches nothing. To end would have the kubelet
// start it again and again.
func (a *agent) powerless(refused error) []task.Task {
	a.log.Error("the kernel refuses what the agent needs: it does nothing until it is started with its capabilities", "error", refused)
	problems, _ := a.own.get()
	reason, message := problemText(problems)
	message += ": " + refused.Error()
	for _, gate := range []string{gateCluster, gateKernel, gateBGP, gateSocket, gateConfig} {
		a.gates.wait(gate, message)
	}
	server := a.httpServer()
	server.status = func() Status {
		return Status{Node: a.cfg.Node, Version: a.cfg.Version, Waiting: a.gates.waiting(), Without: a.without, Problems: []string{message}}
	}
	server.show = func(*http.ServeMux) {}
	server.reg = prometheus.NewRegistry() // there is nothing to count
	return []task.Task{
		task.Func("http", server.run),
		task.Func("status", func(ctx context.Context, ready func()) error {
			ready()
			task.Loop(ctx, func(ctx context.Context) (next task.Next) {
				if err := a.cluster.SetNodeProblem(ctx, true, reason, message); err != nil && ctx.Err() == nil {
					a.log.Warn("problems of the node not told", "error", err)
					return next.Within(retryAfter)
				}
				return task.Next{After: preflightAgain}
			})
			return nil
		}),
	}
}
