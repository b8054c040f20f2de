package manifests_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// container starts the agent by runc as the DaemonSet's container is: with these
// capabilities and no others, a root file system that is read-only, and the seccomp
// profile of seccomp/muslin-agent.json.
func container(t *testing.T, n *kubetest.Node, programs string, granted []string) {
	t.Helper()
	type object = map[string]any
	caps := make([]string, 0, len(granted))
	for _, c := range granted {
		caps = append(caps, "CAP_"+c)
	}
	bind := func(from, to string, options ...string) object {
		return object{"type": "bind", "source": from, "destination": to, "options": append(options, "rbind")}
	}
	config, err := json.Marshal(object{
		"ociVersion": "1.0.2",
		"process": object{
			"args": []string{"/programs/agent"}, "cwd": "/", "env": n.Env(), "noNewPrivileges": true, "user": object{"uid": 0, "gid": 0},
			"capabilities": object{"bounding": caps, "effective": caps, "permitted": caps},
		},
		"root": object{"path": "rootfs", "readonly": true},
		"mounts": []object{
			{"type": "proc", "source": "proc", "destination": "/proc"}, {"type": "tmpfs", "source": "tmpfs", "destination": "/dev"},
			bind(programs, "/programs", "ro"), bind(n.Dir, n.Dir), bind("/run/netns", "/run/netns", "rslave"), bind("/proc/sys/net", "/host/proc/sys/net"),
		},
		"linux": object{
			"namespaces": []object{{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}},
			"seccomp":    readProfile(t), "readonlyPaths": []string{"/proc/sys"},
		},
	})
	if err == nil {
		err = os.MkdirAll(n.File("bundle/rootfs"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(n.File("bundle/config.json"), config, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	n.StartAgent("runc", "--root", n.File("runc"), "run", "--bundle", n.File("bundle"), filepath.Base(n.Netns))
	t.Cleanup(func() {
		_ = exec.Command("runc", "--root", n.File("runc"), "delete", "--force", filepath.Base(n.Netns)).Run()
	})
}

// filtered says whether the kernel has a filter for the container's process.
func filtered(t *testing.T, n *kubetest.Node) bool {
	t.Helper()
	var state struct{ Pid int }
	out, err := exec.Command("runc", "--root", n.File("runc"), "state", filepath.Base(n.Netns)).Output()
	if err == nil {
		err = json.Unmarshal(out, &state)
	}
	status, readErr := os.ReadFile(fmt.Sprintf("/proc/%d/status", state.Pid))
	if err := errors.Join(err, readErr); err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(status), "\nSeccomp:\t2\n")
}

// profile is a seccomp profile, as runtimes read it.
type profile struct {
	DefaultAction   string   `json:"defaultAction"`
	DefaultErrnoRet uint     `json:"defaultErrnoRet"`
	Architectures   []string `json:"architectures"`
	Syscalls        []struct {
		Names  []string `json:"names"`
		Action string   `json:"action"`
	} `json:"syscalls"`
}

func readProfile(t *testing.T) (p profile) {
	t.Helper()
	text, err := os.ReadFile("seccomp/muslin-agent.json")
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The profile refuses what it does not name, and names nothing that would let the
// agent change the machine beyond its network.
func TestSeccompProfileIsNarrow(t *testing.T) {
	p := readProfile(t)
	if p.DefaultAction != "SCMP_ACT_ERRNO" {
		t.Errorf("what it does not name is %s", p.DefaultAction)
	}
	for _, s := range p.Syscalls {
		if s.Action != "SCMP_ACT_ALLOW" || !slices.IsSorted(s.Names) {
			t.Errorf("%s, or not sorted: %v", s.Action, s.Names)
		}
		for _, never := range []string{"bpf", "delete_module", "finit_module", "init_module", "kexec_load", "mount", "move_mount", "perf_event_open", "pivot_root", "process_vm_writev", "ptrace", "reboot", "swapon", "umount2", "unshare", "userfaultfd"} {
			if slices.Contains(s.Names, never) {
				t.Errorf("%s is allowed", never)
			}
		}
	}
}
