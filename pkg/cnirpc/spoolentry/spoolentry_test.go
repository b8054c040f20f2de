package spoolentry

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muslin-net/muslin/pkg/cnirpc/client"
)

// A record is JSON, in which the configuration is as it came.
func TestRecordIsTheJSONOfARequest(t *testing.T) {
	for _, want := range []client.Request{
		{ContainerID: "a", Netns: "/run/\"netns\"\n", IfName: "eth0", Args: "K=é;<&>", Config: []byte(" {\"x\": [1], \"y\": \"\xff\"}\n")},
		{ContainerID: "z", IfName: "net1"},
	} {
		var got struct {
			client.Request
			Config json.RawMessage `json:"config"`
		}
		b := encode([]byte{}, want)
		if err := json.Unmarshal(b, &got); err != nil {
			t.Errorf("%s: %v", b, err)
		}
		if !bytes.Contains(b, want.Config) {
			t.Errorf("%s: the configuration is not as it came", b)
		}
		got.Request.Config, want.Config = got.Config, bytes.TrimSpace(want.Config)
		if d := cmp.Diff(want, got.Request, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s (-want +got):\n%s", b, d)
		}
	}
}

func TestWriteRefusesWhatIsNoFileName(t *testing.T) {
	for _, r := range []client.Request{{ContainerID: "../x", IfName: "eth0"}, {ContainerID: "x"}, {ContainerID: "x", IfName: "a@b"}} {
		if err := Write(t.TempDir(), r, nil); err == nil {
			t.Errorf("%+v was written", r)
		}
	}
}

func TestWriteMakesTheDirectoryForRootAlone(t *testing.T) {
	top := filepath.Join(t.TempDir(), "var")
	dir := filepath.Join(top, "spool") + "/"
	if err := Write(dir, client.Request{ContainerID: "a", IfName: "eth0"}, nil); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{top: 0o755, dir: 0o700, Path(dir, "a", "eth0"): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v, error %v", path, st.Mode().Perm(), want, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left: %v, error %v", entries, err)
	}
}

func TestWriteSaysWhatFailed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, file + "/below"} {
		if err := Write(dir, client.Request{ContainerID: "a", IfName: "eth0"}, nil); err == nil {
			t.Errorf("no error for %s", dir)
		}
	}
	dir := t.TempDir() // where the record should be is a directory
	if err := os.MkdirAll(Path(dir, "a", "eth0"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, client.Request{ContainerID: "a", IfName: "eth0"}, nil); err == nil {
		t.Error("no error")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left: %v, error %v", entries, err)
	}
}
