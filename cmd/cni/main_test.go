package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
	cniversion "github.com/containernetworking/cni/pkg/version"

	"github.com/muslin-net/muslin/hack/image"
	"github.com/muslin-net/muslin/pkg/cnirpc/spool"
	"github.com/muslin-net/muslin/pkg/cnirpc/spoolentry"
)

const maxSize = 8 << 20 // bytes, stripped

// build makes the plugin as the image does.
func build(t *testing.T) string {
	t.Helper()
	built, err := image.Build(t.Context(), image.BuildOptions{Root: "../..", Out: t.TempDir()}, []image.Program{image.Plugin})
	if err != nil {
		t.Fatal(err)
	}
	return built[0].Source
}

func TestPluginIsSmallAndThin(t *testing.T) {
	st, err := os.Stat(build(t))
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() > maxSize {
		t.Errorf("plugin is %d bytes, at most %d are allowed", st.Size(), maxSize)
	}
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	// What starts slowly, or would let the plugin act on its own.
	for dep := range strings.FieldsSeq(string(out)) {
		for _, banned := range []string{"google.golang.org/", "golang.org/", "k8s.io/", "github.com/vishvananda/", "github.com/containernetworking/",
			"os", "net", "net/http", "crypto/tls", "log/slog", "fmt", "reflect", "regexp", "encoding/", "time", "unicode", "internal/godebug"} {
			if dep == banned || strings.HasSuffix(banned, "/") && strings.HasPrefix(dep, banned) {
				t.Errorf("plugin links %s", dep)
			}
		}
	}
}

// exe runs the plugin as a runtime does.
func exe(t *testing.T, bin, command, stdin string, env ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(bin)
	cmd.Env = append([]string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=c1", "CNI_NETNS=/nonexistent", "CNI_IFNAME=eth0", "CNI_PATH=/x",
	}, env...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout = &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), err
}

func wantError(t *testing.T, out string, err error, code uint, texts ...string) {
	t.Helper()
	var e types.Error
	if err == nil || json.Unmarshal([]byte(out), &e) != nil {
		t.Fatalf("exit %v with %q, want a CNI error", err, out)
	}
	if e.Code != code {
		t.Errorf("code %d, want %d: %s", e.Code, code, out)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			t.Errorf("error %s does not say %q", out, text)
		}
	}
}

func conf(dir, version string) string {
	return fmt.Sprintf(`{"cniVersion":%q,"name":"n","type":"muslin","socket":%q,"spool":%q}`,
		version, filepath.Join(dir, "agent.sock"), filepath.Join(dir, "spool"))
}

func TestVersion(t *testing.T) {
	out, err := exe(t, build(t), "VERSION", "")
	if err != nil || !strings.Contains(out, `"supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]`) {
		t.Errorf("%v %s", err, out)
	}
}

func TestBadInput(t *testing.T) {
	bin, dir := build(t), t.TempDir()
	cases := map[string]struct {
		command, stdin string
		env            []string
		code           uint
		want           string
	}{
		"garbage":          {"ADD", "\x00\xff", nil, types.ErrDecodingFailure, ""},
		"nothing":          {"ADD", "", nil, types.ErrDecodingFailure, ""},
		"socket no string": {"ADD", `{"cniVersion":"1.0.0","name":"n","socket":1}`, nil, types.ErrDecodingFailure, "socket"},
		"no name":          {"ADD", `{"cniVersion":"1.0.0"}`, nil, types.ErrInvalidNetworkConfig, "name"},
		"old version":      {"ADD", conf(dir, "0.2.0"), nil, types.ErrIncompatibleCNIVersion, "0.2.0"},
		"new version":      {"DEL", conf(dir, "2.0.0"), nil, types.ErrIncompatibleCNIVersion, "2.0.0"},
		"early CHECK":      {"CHECK", conf(dir, "0.3.1"), nil, types.ErrIncompatibleCNIVersion, "CHECK"},
		"early GC":         {"GC", conf(dir, "1.0.0"), nil, types.ErrIncompatibleCNIVersion, "GC"},
		"early STATUS":     {"STATUS", conf(dir, "1.0.0"), nil, types.ErrIncompatibleCNIVersion, "STATUS"},
		"unknown verb":     {"MOVE", conf(dir, "1.0.0"), nil, types.ErrInvalidEnvironmentVariables, "MOVE"},
		"no container":     {"ADD", conf(dir, "1.0.0"), []string{"CNI_CONTAINERID="}, types.ErrInvalidEnvironmentVariables, "CNI_CONTAINERID"},
		"bad container":    {"DEL", conf(dir, "1.0.0"), []string{"CNI_CONTAINERID=../x"}, types.ErrInvalidEnvironmentVariables, "../x"},
		"no netns":         {"ADD", conf(dir, "1.0.0"), []string{"CNI_NETNS="}, types.ErrInvalidEnvironmentVariables, "CNI_NETNS"},
		"bad network":      {"ADD", `{"cniVersion":"1.0.0","name":"a b"}`, nil, types.ErrInvalidNetworkConfig, "a b"},
		"bad interface":    {"DEL", conf(dir, "1.0.0"), []string{"CNI_IFNAME=a/b"}, types.ErrInvalidEnvironmentVariables, "interface name"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			out, err := exe(t, bin, c.command, c.stdin, c.env...)
			wantError(t, out, err, c.code, c.want)
		})
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("bad input left %v, error %v", entries, err)
	}
}

func TestAgentAway(t *testing.T) {
	bin := build(t)
	stale := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(stale, "agent.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for name, dir := range map[string]string{"no socket": t.TempDir(), "stale socket": stale} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(dir, "agent.sock")
			for command, code := range map[string]uint{
				"ADD": types.ErrTryAgainLater, "CHECK": types.ErrTryAgainLater, "GC": types.ErrTryAgainLater,
				"STATUS": types.ErrPluginNotAvailable,
			} {
				out, err := exe(t, bin, command, conf(dir, "1.1.0"))
				wantError(t, out, err, code, socket, "muslin-agent")
			}
			const args = "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=a"
			for range 2 { // the runtime may repeat it
				if out, err := exe(t, bin, "DEL", conf(dir, "1.1.0"), "CNI_ARGS="+args); err != nil || out != "" {
					t.Errorf("DEL: %v %s", err, out)
				}
			}
			records, err := spool.List(filepath.Join(dir, "spool"), nil)
			if err != nil || len(records) != 1 || records[0].Err != nil {
				t.Fatalf("records %+v, error %v", records, err)
			}
			r := records[0].Request
			if r.ContainerID != "c1" || r.IfName != "eth0" || r.Args != args || string(r.Config) != conf(dir, "1.1.0") {
				t.Errorf("record %+v", r)
			}
			if names, _ := filepath.Glob(filepath.Join(dir, "spool", ".*")); len(names) > 0 {
				t.Errorf("temporary files: %v", names)
			}
		})
	}
}

func TestDelThatCannotBeRecordedIsAnError(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "spool"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exe(t, build(t), "DEL", conf(dir, "1.0.0"))
	wantError(t, out, err, types.ErrTryAgainLater, "agent.sock", "spool")
}

func TestConfigurationStaysWhole(t *testing.T) {
	// The plugin reads a few keys; the agent gets every byte.
	const text = `{"cniVersion":"1.1.0","name":"n","x":{"y":[1]},"socket":"/s"}`
	r, err := read("GC", func(string) string { return "/x" }, strings.NewReader(text))
	if err != nil || r.socket != "/s" || r.spool != spoolentry.DefaultDir || string(r.Config) != text {
		t.Errorf("%+v %v", r, err)
	}
}

// The plugin's own checks are those of the skeleton that it does without.
func TestCodesAndVersionsAreTheSpecifications(t *testing.T) {
	for got, want := range map[uint]uint{
		codeIncompatibleVersion: types.ErrIncompatibleCNIVersion, codeEnvironment: types.ErrInvalidEnvironmentVariables,
		codeIO: types.ErrIOFailure, codeDecoding: types.ErrDecodingFailure, codeNetworkConfig: types.ErrInvalidNetworkConfig,
		codeTryAgainLater: types.ErrTryAgainLater, codePluginNotAvailable: types.ErrPluginNotAvailable,
	} {
		if got != want {
			t.Errorf("code %d, want %d", got, want)
		}
	}
	for _, v := range versions {
		if !slices.Contains(cniversion.All.SupportedVersions(), v) {
			t.Errorf("%s is no version of the specification", v)
		}
	}
}

func FuzzNamesAreTheLibrarys(f *testing.F) {
	for _, name := range []string{"a", "eth0", "A_.-9", "", ".", "..", "-a", "a/b", "a:b", "a b", "a\u00a0b", "é", "a23456789012345", "a234567890123456", "a\n", "a\xff"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if got, want := isName(name), utils.ValidateContainerID(name) == nil; got != want {
			t.Errorf("container %q: %v, want %v", name, got, want)
		}
		if got, want := name != "" && checkNames("c", name) == nil, utils.ValidateInterfaceName(name) == nil; got != want {
			t.Errorf("interface %q: %v, want %v", name, got, want)
		}
	})
}
