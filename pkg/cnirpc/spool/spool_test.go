package spool

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/pkg/cnirpc/client"
	"github.com/muslin-net/muslin/pkg/cnirpc/spoolentry"
)

func TestRecordsComeBackAsWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "spool")
	if records, err := List(dir, nil); err != nil || records != nil {
		t.Fatalf("records of a missing directory: %v, error %v", records, err)
	}
	want := []client.Request{
		{ContainerID: "a.b_c-1", IfName: "eth0", Netns: "/run/netns/x", Args: "K=V", Config: []byte(`{"name":"n"}`)},
		{ContainerID: "z", IfName: "net1"},
	}
	for i := range want {
		for range 2 { // again is no error
			if err := spoolentry.Write(dir, want[i], nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	records, err := List(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []client.Request
	for _, r := range records {
		if r.Err != nil {
			t.Error(r.Err)
		}
		got = append(got, r.Request)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("records (-want +got):\n%s", d)
	}
	for range 2 {
		for _, r := range records {
			if err := Remove(r); err != nil {
				t.Error(err)
			}
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, error %v", entries, err)
	}
}

func TestListReportsBadRecordsAndLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"torn@eth0.json": `{"contai`, "other@eth0.json": `{"containerID":"x","ifname":"eth0"}`,
		"number@eth0.json": `{"containerID":"number","ifname":"eth0","args":1}`,
		"README":           "", ".new-1@a.json": "{}", "noat.json": "{}",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	records, err := List(dir, nil)
	if err != nil || len(records) != 3 || records[0].Err == nil || records[1].Err == nil || records[2].Err == nil {
		t.Errorf("records %+v, error %v", records, err)
	}
}

func TestListLeavesOutWhatIsKnown(t *testing.T) {
	dir := t.TempDir()
	for _, id := range []string{"a", "b"} {
		if err := spoolentry.Write(dir, client.Request{ContainerID: id, IfName: "eth0"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	records, err := List(dir, func(path string) bool { return path == spoolentry.Path(dir, "a", "eth0") })
	if err != nil || len(records) != 1 || records[0].Request.ContainerID != "b" {
		t.Errorf("records %+v, error %v", records, err)
	}
}

func TestReadKnowsARecordByItsName(t *testing.T) {
	dir := t.TempDir()
	if err := spoolentry.Write(dir, client.Request{ContainerID: "a", IfName: "eth0"}, nil); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"a@eth0.json": true, "b@eth0.json": false, ".new-1": false, "a.json": false, "a@eth0": false} {
		if _, ok := Read(filepath.Join(dir, name)); ok != want {
			t.Errorf("%s: a record is %v, want %v", name, ok, want)
		}
	}
}

func TestSweepRemovesWhatAKilledWriterLeft(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{".new-old", ".new-young", "a@eth0.json", ".mine"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if name != ".new-young" {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := Sweep(dir, time.Minute); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if d := cmp.Diff([]string{".mine", ".new-young", "a@eth0.json"}, names); d != "" || err != nil {
		t.Errorf("left (-want +got), error %v:\n%s", err, d)
	}
}
