package spool

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/pkg/cnirpc/client"
)

func TestRecordsComeBackAsWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "spool")
	if records, err := List(dir); err != nil || records != nil {
		t.Fatalf("records of a missing directory: %v, error %v", records, err)
	}
	want := []client.Request{
		{ContainerID: "a.b_c-1", IfName: "eth0", Netns: "/run/netns/x", Args: "K=V", Config: []byte(`{"name":"n"}`)},
		{ContainerID: "z", IfName: "net1"},
	}
	for i, write := range []func(string, client.Request) (Record, error){Write, WriteUnsynced} {
		for range 2 { // again is no error
			if r, err := write(dir, want[i]); err != nil || r.Path != Path(dir, want[i].ContainerID, want[i].IfName) {
				t.Fatalf("record %+v, error %v", r, err)
			}
		}
	}
	records, err := List(dir)
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

// Records are the JSON that encoding/json would write, and did in earlier releases.
func TestRecordIsTheJSONOfARequest(t *testing.T) {
	for _, want := range []client.Request{
		{ContainerID: "a", Netns: "/run/\"netns\"\n", IfName: "eth0", Args: "K=é;<&>", Config: []byte("{}\xff")},
		{ContainerID: "z", IfName: "net1"},
	} {
		var got client.Request
		if err := json.Unmarshal(encode(want), &got); err != nil || !cmp.Equal(want, got) {
			t.Errorf("%s: error %v, %s", encode(want), err, cmp.Diff(want, got))
		}
		b, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decode(b); err != nil || !cmp.Equal(want, got) {
			t.Errorf("%s: error %v, %s", b, err, cmp.Diff(want, got))
		}
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
	records, err := List(dir)
	if err != nil || len(records) != 3 || records[0].Err == nil || records[1].Err == nil || records[2].Err == nil {
		t.Errorf("records %+v, error %v", records, err)
	}
}

func TestWriteRefusesWhatIsNoFileName(t *testing.T) {
	for _, r := range []client.Request{{ContainerID: "../x", IfName: "eth0"}, {ContainerID: "x"}, {ContainerID: "x", IfName: "a@b"}} {
		if _, err := Write(t.TempDir(), r); err == nil {
			t.Errorf("%+v was written", r)
		}
	}
}
