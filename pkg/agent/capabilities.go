package agent

import (
	"context"
	"fmt"
	"net/http"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// capability is one that the DaemonSet grants (capabilities(7)), and what is not
// there without it.
type capability struct {
	bit           uint
	name, without string
}

var capabilities = []capability{
	{unix.CAP_NET_ADMIN, "NET_ADMIN", "the agent can write no link, route or rule"},
	{unix.CAP_NET_RAW, "NET_RAW", "no router advertisements to unnumbered BGP peers, and no echoes of muslinctl explain"},
	{unix.CAP_SYS_ADMIN, "SYS_ADMIN", "the agent cannot enter the network namespace of a pod"},
	{unix.CAP_NET_BIND_SERVICE, "NET_BIND_SERVICE", "BGP cannot listen on port 179, nor on another privileged one"},
}

// missing gives those of capabilities that are not in a set.
func missing(set uint64) (out []capability) {
	for _, c := range capabilities {
		if set&(1<<c.bit) == 0 {
			out = append(out, c)
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

// checkCapabilities makes a problem of the node of each that is missing, and says
// whether there is one.
func (a *agent) checkCapabilities() (lacking bool, err error) {
	set, err := effective()
	if err != nil {
		return false, err
	}
	var problems []model.Problem
	for _, c := range missing(set) {
		problems = append(problems, nodeProblem(a.cfg.Node, "securityContext.capabilities", "CapabilityMissing",
			fmt.Sprintf("capability %s is missing: %s; grant it to container agent of DaemonSet muslin-agent", c.name, c.without)))
	}
	a.own.capabilities.set(problems)
	return len(problems) > 0, nil
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
		return Status{Node: a.cfg.Node, Version: a.cfg.Version, Waiting: a.gates.waiting(), Problems: []string{message}}
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
