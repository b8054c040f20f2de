package spool

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/pkg/cnirpc/client"
)

func TestDecodeReadsTheRecordsOfEarlierReleases(t *testing.T) {
	want := client.Request{ContainerID: "a", IfName: "eth0", Args: "K=V", Config: []byte(`{"name":"n"}`)}
	for _, text := range []string{
		`{"containerID":"a","ifname":"eth0","args":"K=V","config":{"name":"n"}}`,
		`{"containerID":"a","ifname":"eth0","args":"K=V","config":"eyJuYW1lIjoibiJ9"}`, // base64
	} {
		got, err := decode([]byte(text))
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: error %v, (-want +got):\n%s", text, err, d)
		}
	}
	for _, text := range []string{``, `[]`, `{"containerID":1}`, `{"config":"no base64"}`} {
		if got, err := decode([]byte(text)); err == nil {
			t.Errorf("%s was read as %+v", text, got)
		}
	}
}
