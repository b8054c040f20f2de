package cniinstall_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/cmd/agent/cniinstall"
)

func setup(t *testing.T) cniinstall.Options {
	t.Helper()
	dir := t.TempDir()
	o := cniinstall.Options{
		Source: filepath.Join(dir, "image", "muslin"),
		BinDir: filepath.Join(dir, "opt", "cni", "bin"), ConfDir: filepath.Join(dir, "etc", "cni", "net.d"),
	}
	write(t, o.Source, "plugin one", 0o500)
	return o
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func must(t *testing.T, changed bool, err error, want bool) {
	t.Helper()
	if err != nil || changed != want {
		t.Fatalf("changed %v, error %v, want changed %v", changed, err, want)
	}
}

func TestBinaryIsReplacedOnlyWhenItDiffers(t *testing.T) {
	o := setup(t)
	changed, err := cniinstall.Binary(o)
	must(t, changed, err, true)
	path := filepath.Join(o.BinDir, "muslin")
	first, err := os.Stat(path)
	if err != nil || first.Mode() != 0o755 {
		t.Fatalf("%v, error %v", first, err)
	}
	changed, err = cniinstall.Binary(o)
	must(t, changed, err, false)
	again, err := os.Stat(path)
	if err != nil || !os.SameFile(first, again) {
		t.Error("the same content was written again")
	}

	// A runtime that is just running the old one keeps it.
	old, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := os.Chmod(o.Source, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, o.Source, "plugin two", 0o700)
	changed, err = cniinstall.Binary(o)
	must(t, changed, err, true)
	if b, _ := os.ReadFile(path); string(b) != "plugin two" {
		t.Errorf("binary holds %q", b)
	}
	kept := make([]byte, 10)
	if _, err := old.Read(kept); err != nil || string(kept) != "plugin one" {
		t.Errorf("open binary holds %q, error %v", kept, err)
	}

	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	changed, err = cniinstall.Binary(o)
	must(t, changed, err, true)
	if d := cmp.Diff([]string{"muslin"}, names(t, o.BinDir)); d != "" {
		t.Errorf("directory (-want +got):\n%s", d)
	}
}

func TestConfigIsWhatLibcniReads(t *testing.T) {
	cases := map[string]struct {
		portmap bool
		change  func(*cniinstall.Options)
		want    string
	}{
		"plain": {false, func(*cniinstall.Options) {}, `{
  "cniVersion": "1.0.0",
  "name": "k8s-pod-network",
  "plugins": [
    {
      "type": "muslin",
      "ipam": {
        "type": "muslin-ipam"
      }
    }
  ]
}
`},
		"all": {true, func(o *cniinstall.Options) {
			o.MTU, o.Socket, o.Spool, o.CNIVersion, o.Network = 1440, "/s", "/p", "1.1.0", "net"
		}, `{
  "cniVersion": "1.1.0",
  "name": "net",
  "plugins": [
    {
      "type": "muslin",
      "mtu": 1440,
      "socket": "/s",
      "spool": "/p",
      "ipam": {
        "type": "muslin-ipam"
      }
    },
    {
      "type": "portmap",
      "snat": true,
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := setup(t)
			c.change(&o)
			if c.portmap {
				write(t, filepath.Join(o.BinDir, "portmap"), "p", 0o755)
			}
			changed, err := cniinstall.Binary(o)
			must(t, changed, err, true)
			changed, err = cniinstall.Config(o)
			must(t, changed, err, true)
			path := filepath.Join(o.ConfDir, "10-muslin.conflist")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, string(b)); d != "" {
				t.Errorf("configuration (-want +got):\n%s", d)
			}
			list, err := libcni.ConfListFromFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if list.Plugins[0].Network.Type != "muslin" || list.Plugins[0].Network.IPAM.Type != "muslin-ipam" {
				t.Errorf("libcni reads %+v", list.Plugins[0].Network)
			}
			if files, err := libcni.ConfFiles(o.ConfDir, []string{".conflist", ".conf", ".json"}); err != nil || len(files) != 1 {
				t.Errorf("libcni sees %v, error %v", files, err)
			}
			changed, err = cniinstall.Config(o)
			must(t, changed, err, false)
		})
	}
}

func TestConfigWaitsForTheBinary(t *testing.T) {
	o := setup(t)
	if _, err := cniinstall.Config(o); err == nil || !strings.Contains(err.Error(), o.BinDir) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(o.ConfDir); !os.IsNotExist(err) {
		t.Errorf("something was written: %v", err)
	}
}

func TestUninstallTakesOnlyItsOwn(t *testing.T) {
	o := setup(t)
	write(t, filepath.Join(o.BinDir, "portmap"), "p", 0o755)
	write(t, filepath.Join(o.ConfDir, "20-other.conflist"), "{}", 0o644)
	write(t, filepath.Join(o.ConfDir, ".muslin-new-123"), "half", 0o600)
	changed, err := cniinstall.Binary(o)
	must(t, changed, err, true)
	changed, err = cniinstall.Config(o)
	must(t, changed, err, true)
	if !slices.Contains(names(t, o.ConfDir), ".muslin-new-123") {
		t.Error("a temporary file that may be in use was swept")
	}
	for range 2 {
		if err := cniinstall.Uninstall(o); err != nil {
			t.Fatal(err)
		}
	}
	got := [][]string{names(t, o.BinDir), names(t, o.ConfDir)}
	if d := cmp.Diff([][]string{{"portmap"}, {"20-other.conflist"}}, got); d != "" {
		t.Errorf("left (-want +got):\n%s", d)
	}
	if err := cniinstall.Uninstall(cniinstall.Options{BinDir: "/nonexistent", ConfDir: "/nonexistent"}); err != nil {
		t.Error(err)
	}
}

func TestInstallSweepsWhatAKilledOneLeft(t *testing.T) {
	o := setup(t)
	left := filepath.Join(o.BinDir, ".muslin-new-9")
	write(t, left, "half", 0o600)
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(left, old, old); err != nil {
		t.Fatal(err)
	}
	changed, err := cniinstall.Binary(o)
	must(t, changed, err, true)
	if d := cmp.Diff([]string{"muslin"}, names(t, o.BinDir)); d != "" {
		t.Errorf("directory (-want +got):\n%s", d)
	}
}

func TestErrorsNameTheFile(t *testing.T) {
	o := setup(t)
	o.Source = "/nonexistent/muslin"
	if _, err := cniinstall.Binary(o); err == nil || !strings.Contains(err.Error(), o.Source) {
		t.Errorf("error %v", err)
	}
	o = setup(t)
	write(t, o.BinDir, "a file where the directory should be", 0o644)
	if _, err := cniinstall.Binary(o); err == nil || !strings.Contains(err.Error(), o.BinDir) {
		t.Errorf("error %v", err)
	}
}

// TestOthersPluginsStay has a service mesh append its plugin and somebody change
// one of ours: both stay as they are, and chained plugins come and go with their
// binaries.
func TestOthersPluginsStay(t *testing.T) {
	o := setup(t)
	changed, err := cniinstall.Binary(o)
	must(t, changed, err, true)
	write(t, filepath.Join(o.BinDir, "portmap"), "p", 0o755)
	changed, err = cniinstall.Config(o)
	must(t, changed, err, true)
	path := filepath.Join(o.ConfDir, "10-muslin.conflist")
	types := func() (out []string) {
		t.Helper()
		list, err := libcni.ConfListFromFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list.Plugins {
			out = append(out, p.Network.Type)
		}
		return out
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), `"snat": true`, `"snat": false`, 1)
	text = strings.Replace(text, "    }\n  ]", `    },
    {"type": "linkerd-cni", "log_level": "<info>", "policy": {"type": "k8s"}}, {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}
  ]`, 1)
	write(t, path, text, 0o644)
	changed, err = cniinstall.Config(o) // written in its own form, once
	must(t, changed, err, true)
	changed, err = cniinstall.Config(o)
	must(t, changed, err, false)
	if d := cmp.Diff([]string{"muslin", "portmap", "linkerd-cni", "tuning"}, types()); d != "" {
		t.Errorf("plugins (-want +got):\n%s", d)
	}
	if b, _ := os.ReadFile(path); !strings.Contains(string(b), `"snat": false`) || !strings.Contains(string(b), "somaxconn") {
		t.Errorf("what others set is gone:\n%s", b)
	}

	write(t, filepath.Join(o.BinDir, "bandwidth"), "b", 0o755)
	o.Socket = "/elsewhere"
	changed, err = cniinstall.Config(o)
	must(t, changed, err, true)
	if d := cmp.Diff([]string{"muslin", "portmap", "bandwidth", "linkerd-cni", "tuning"}, types()); d != "" {
		t.Errorf("plugins (-want +got):\n%s", d)
	}
	if b, _ := os.ReadFile(path); !strings.Contains(string(b), "/elsewhere") || !strings.Contains(string(b), `"bandwidth": true`) {
		t.Errorf("ours is not as it should be:\n%s", b)
	}
	if err := os.Remove(filepath.Join(o.BinDir, "portmap")); err != nil {
		t.Fatal(err)
	}
	changed, err = cniinstall.Config(o)
	must(t, changed, err, true)
	if d := cmp.Diff([]string{"muslin", "bandwidth", "linkerd-cni", "tuning"}, types()); d != "" {
		t.Errorf("plugins (-want +got):\n%s", d)
	}
	write(t, path, "{half", 0o644)
	changed, err = cniinstall.Config(o)
	must(t, changed, err, true)
	if d := cmp.Diff([]string{"muslin", "bandwidth"}, types()); d != "" {
		t.Errorf("plugins (-want +got):\n%s", d)
	}
}

// TestWhatTheRuntimeTakesInPlace asks libcni for the order, and has what comes
// before ours named, moved away and put back.
func TestWhatTheRuntimeTakesInPlace(t *testing.T) {
	o := setup(t)
	if got, err := cniinstall.InPlace(o); err != nil || got != nil {
		t.Fatalf("without a directory: %v, %v", got, err)
	}
	const bridge = `{"cniVersion": "1.0.0", "name": "b", "plugins": [{"type": "bridge", "ipam": {"type": "host-local"}}]}`
	for name, text := range map[string]string{
		"05-bridge.conf":      `{"cniVersion": "0.4.0", "name": "b", "type": "bridge"}`,
		"10-calico.conflist":  bridge,
		"1-k8s.json":          bridge,
		"10-broken.conflist":  "{",
		"00-multus.conf":      `{"cniVersion": "1.0.0", "name": "m", "type": "multus-shim", "clusterNetwork": "/host/etc/cni/net.d/10-muslin.conflist"}`,
		"00-hands-on.conf":    `{"cniVersion": "1.0.0", "name": "d", "type": "delegator", "delegates": [{"plugins": [{"type": "muslin"}]}]}`,
		"00-readme.txt":       "no configuration",
		"10-muslin.conflist":  bridge,
		"20-after.conflist":   bridge,
		"10-old.conflist.bak": bridge,
	} {
		write(t, filepath.Join(o.ConfDir, name), text, 0o644)
	}
	want := []string{"05-bridge.conf", "1-k8s.json", "10-broken.conflist", "10-calico.conflist"}
	slices.Sort(want)
	got, err := cniinstall.InPlace(o)
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Fatalf("%v (-want +got):\n%s", err, d)
	}
	moved, err := cniinstall.MoveAway(o)
	if d := cmp.Diff(want, moved); err != nil || d != "" {
		t.Fatalf("%v (-want +got):\n%s", err, d)
	}
	files, err := libcni.ConfFiles(o.ConfDir, []string{".conf", ".conflist", ".json"})
	if err != nil || len(files) != 4 { // those that hand on, ours, the one after
		t.Errorf("a runtime sees %v, error %v", files, err)
	}
	write(t, filepath.Join(o.ConfDir, "05-bridge.conf"), "written anew", 0o644)
	if err := cniinstall.Uninstall(o); err != nil {
		t.Fatal(err)
	}
	left := names(t, o.ConfDir)
	for _, name := range want {
		if !slices.Contains(left, name) {
			t.Errorf("%s was not put back: %v", name, left)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(o.ConfDir, "05-bridge.conf")); string(b) != "written anew" {
		t.Errorf("what stood there was overwritten: %s", b)
	}
}

// TestUsable: an older plugin of ours will do, another program does not.
func TestUsable(t *testing.T) {
	o := setup(t)
	path := filepath.Join(o.BinDir, "muslin")
	if err := cniinstall.Usable(t.Context(), o); err == nil {
		t.Error("there is none")
	}
	for text, want := range map[string]bool{
		"#!/bin/sh\necho 'CNI plugin muslin v0.1' >&2\n":       true,
		"#!/bin/sh\necho 'CNI bridge plugin version x' >&2\n":  false,
		"#!/bin/sh\necho 'CNI plugin muslin v0.1'; exit 139\n": false,
		"half": false,
	} {
		_ = os.Remove(path)
		write(t, path, text, 0o755)
		if err := cniinstall.Usable(t.Context(), o); (err == nil) != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}
