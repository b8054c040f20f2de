package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// operator is somebody who has kubectl, muslinctl and a shell on the machines.
type operator struct {
	story
	program string // muslinctl, the real one
}

// operator has the muslinctl of this checkout.
func (s story) operator(t *testing.T, ctx context.Context) operator {
	t.Helper()
	muslin, err := build(ctx, s.Source)
	if err != nil {
		t.Fatal(err)
	}
	return operator{s, filepath.Join(muslin.dir, "muslinctl")}
}

// muslinctl runs where the API server can be reached and decodes its JSON. Exit
// code 4, "something is wrong", is an answer and no error.
func (o operator) muslinctl(ctx context.Context, into any, args ...string) error {
	cmd := o.ControlPlane().CommandInNet(ctx, append([]string{o.program}, append(args, "-o", "json")...)...)
	cmd.Env = append(cmd.Env, "KUBECONFIG="+o.Kubeconfig())
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState.ExitCode() != 4 {
		return fmt.Errorf("muslinctl %q: %w: %s", args, err, errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), into); err != nil {
		return fmt.Errorf("muslinctl %q: %w in %q", args, err, out.String())
	}
	return nil
}

// step is something an operator does, or somebody does to him.
type step func(context.Context) error

// on runs a shell script on a machine.
func (o operator) on(machine, script string) step {
	return func(ctx context.Context) error {
		_, err := o.Machine(machine).Exec(ctx, "sh", "-ec", script)
		return err
	}
}

// patched merges JSON into an object of projectcalico.org.
func (o operator) patched(object, merge string) step {
	return func(ctx context.Context) error {
		_, err := o.Kubectl(ctx, "", "patch", object, "--type=merge", "-p", merge)
		return err
	}
}

// applied creates or changes objects.
func (o operator) applied(yaml string) step {
	return func(ctx context.Context) error {
		_, err := o.Kubectl(ctx, yaml, "apply", "-f", "-")
		return err
	}
}

// deleted removes objects that may be gone already.
func (o operator) deleted(objects ...string) step {
	return func(ctx context.Context) error {
		_, err := o.Kubectl(ctx, "", append([]string{"delete", "--ignore-not-found"}, objects...)...)
		return err
	}
}

// restarted kills the agent of a node and waits for the next one.
func (o operator) restarted(node string) step {
	return func(ctx context.Context) error {
		pid, err := o.findAgent(ctx, node)
		if err != nil {
			return err
		}
		if _, err := o.Machine(node).Exec(ctx, "kill", "-9", pid); err != nil {
			return err
		}
		return o.eventually(ctx, 2*time.Minute, func() error {
			if now, err := o.findAgent(ctx, node); err != nil || now == pid {
				return fmt.Errorf("agent of %s is not back: %s: %w", node, now, err)
			}
			return nil
		})
	}
}

// settled waits until nothing is wrong with the cluster.
func (o operator) settled(ctx context.Context) error {
	return o.eventually(ctx, 2*time.Minute, func() error {
		var findings []finding
		if err := o.muslinctl(ctx, &findings, "check"); err != nil {
			return err
		}
		if len(findings) > 0 {
			return fmt.Errorf("check: %+v", findings)
		}
		return nil
	})
}
