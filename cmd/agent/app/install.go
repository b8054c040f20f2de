package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/muslin-net/muslin/cmd/agent/cniinstall"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

// installAgain is how often the CNI directories are looked at: other installers
// write there, too.
const installAgain = 5 * time.Second

const fileNotWritten = "FileNotWritten"

// Install copies the CNI plugin to the node. The configuration is written later,
// by the agent, once it answers. A node whose disk takes no new plugin goes on
// with the one that it has: without an agent it would lose its routes as well.
func Install(ctx context.Context, c Config) error {
	changed, err := cniinstall.Binary(c.cniOptions())
	if err == nil {
		c.Logger.Info("cni plugin installed", "dir", c.CNI.BinDir, "changed", changed)
		return nil
	}
	if unusable := cniinstall.Usable(ctx, c.cniOptions()); unusable != nil {
		return errors.Join(err, unusable)
	}
	c.Logger.Error("cni plugin not replaced; the one of before goes on", "error", err)
	return nil
}

// Uninstall removes the CNI configuration and the plugin, and puts back what
// MUSLIN_CNI_EXCLUSIVE moved away.
func Uninstall(c Config) error { return cniinstall.Uninstall(c.cniOptions()) }

func (c Config) cniOptions() cniinstall.Options {
	return cniinstall.Options{Source: c.CNI.Source, BinDir: c.CNI.BinDir, ConfDir: c.CNI.ConfDir, Socket: c.Socket}
}

// installCNI writes the CNI configuration: kubelet takes the node for ready
// from then on. It keeps it, chains what plugins come to the node later, and
// says what keeps the runtime from it. What cannot be written is tried again:
// routes and sessions do not need it.
func (a *agent) installCNI(ctx context.Context, ready func()) error {
	ready()
	if a.cfg.CNI.ConfDir == "" {
		a.gates.pass(gateConfig)
		<-ctx.Done()
		return nil
	}
	pluginToo := true
	task.Loop(ctx, func(context.Context) task.Next {
		problems := a.installOnce(pluginToo)
		a.own.install.set(problems)
		pluginToo = slices.ContainsFunc(problems, func(p model.Problem) bool { return p.Reason == fileNotWritten })
		if pluginToo {
			return task.Next{After: retryAfter}
		}
		return task.Next{After: installAgain}
	})
	return nil
}

// installOnce does what can be done, and returns what cannot. The plugin is
// compared with pluginToo alone: it has megabytes.
func (a *agent) installOnce(pluginToo bool) (problems []model.Problem) {
	o := a.cfg.cniOptions()
	if pluginToo {
		// An agent outside its image has no plugin to give; the node's will do.
		if _, err := cniinstall.Binary(o); err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, nodeProblem(a.cfg.Node, "MUSLIN_CNI_BIN", fileNotWritten,
				fmt.Sprintf("%v: the plugin of an earlier release stays; make room, or the directory writable", err)))
		}
	}
	changed, err := cniinstall.Config(o)
	if err != nil {
		a.gates.waitFirst(gateConfig, err.Error())
		return append(problems, nodeProblem(a.cfg.Node, "MUSLIN_CNI_CONF", fileNotWritten,
			fmt.Sprintf("%v: make room, or the directory writable; it is tried again", err)))
	}
	if changed {
		a.log.Info("cni configuration installed", "dir", a.cfg.CNI.ConfDir)
	}
	a.gates.pass(gateConfig)
	if a.cfg.CNI.Exclusive {
		moved, err := cniinstall.MoveAway(o)
		if len(moved) > 0 {
			a.log.Warn("cni configurations of others moved away", "dir", a.cfg.CNI.ConfDir, "names", moved)
		}
		if err != nil {
			return append(problems, nodeProblem(a.cfg.Node, "MUSLIN_CNI_EXCLUSIVE", fileNotWritten, err.Error()))
		}
	}
	if err := a.inPlace(); err != nil {
		problems = append(problems, nodeProblem(a.cfg.Node, "MUSLIN_CNI_CONF", "OtherNetworkFirst", err.Error()))
	}
	return problems
}

// inPlace says which configuration the runtime takes in place of ours.
func (a *agent) inPlace() error {
	if a.cfg.CNI.ConfDir == "" {
		return nil
	}
	names, err := cniinstall.InPlace(a.cfg.cniOptions())
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("the container runtime takes %s, which sorts before %s: pods of this node are on that network; remove the file from the node's CNI directory, or set MUSLIN_CNI_EXCLUSIVE=true on the DaemonSet",
		strings.Join(names, ", "), cniinstall.ConfigName)
}
