package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// bin is a folder with muslinctl, the real binary, and kubectl; both run where
// the server can be reached.
var bin string

var server *kubetest.Server

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "mt-ctl-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	return kubetest.Main(m, func(s *kubetest.Server) {
		server, bin = s, dir
		if err := prepare(s, dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	})
}

func prepare(s *kubetest.Server, dir string) error {
	real := filepath.Join(dir, "real")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version=v9.9.9", "-o", real, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, out)
	}
	kubelab, err := kubetest.Binary()
	if err != nil {
		return err
	}
	for name, line := range map[string]string{
		"muslinctl": real, "kubectl-muslin": "-a kubectl-muslin " + real, "kubectl": kubelab + " kubectl",
	} {
		inside := "exec nsenter --net=/run/netns/" + s.Netns + " -- bash -c 'exec " + line + ` "$@"' ` + name + ` "$@"`
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/bash\n"+inside+"\n"), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// sequential keeps scripts from running at the same time: they share a server.
type sequential struct{ *testing.T }

func (sequential) Parallel() {}

func (s sequential) Run(name string, f func(testscript.T)) {
	s.T.Run(name, func(t *testing.T) { f(sequential{t}) })
}

func (s sequential) Verbose() bool { return testing.Verbose() }

func TestScripts(t *testing.T) {
	testscript.RunT(sequential{t}, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			e.Setenv("KUBECONFIG", filepath.Join(server.Dir, "kubeconfig"))
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("NETNS", server.Netns)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": exitCode},
	})
}

// exitCode runs a command that has to end with a code: code 2 muslinctl get.
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var e *exec.ExitError
	if errors.As(err, &e) {
		got = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}
