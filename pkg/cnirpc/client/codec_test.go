package client

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	spb "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/muslin-net/muslin/pkg/cnirpc"
)

func FuzzRequestEncodesAsGenerated(f *testing.F) {
	f.Add("", "", "", "", []byte(nil))
	f.Add("c1", "/run/netns/x", "eth0", "K=V", []byte(`{"name":"n"}`))
	f.Add(strings.Repeat("c", 300), "", "e", "", bytes.Repeat([]byte{0}, 20000))
	f.Fuzz(func(t *testing.T, id, netns, ifname, args string, config []byte) {
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(&cnirpc.Request{
			ContainerId: id, Netns: netns, Ifname: ifname, Args: args, Config: config,
		})
		if err != nil {
			return // the generated code refuses text that is not UTF-8
		}
		got := Request{ContainerID: id, Netns: netns, IfName: ifname, Args: args, Config: config}.marshal()
		if !bytes.Equal(got, want) {
			t.Errorf("encoded % x, want % x", got, want)
		}
	})
}

func TestCNIErrorReadsWhatGeneratedCodeWrote(t *testing.T) {
	detail, err := anypb.New(&cnirpc.Error{Code: 300, Msg: "msg", Details: "det"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := anypb.New(&cnirpc.Request{ContainerId: "x"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(&spb.Status{Code: 13, Message: "m", Details: []*anypb.Any{other, detail}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := cniError(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&Error{Code: 300, Msg: "msg", Details: "det"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// Whatever comes off the wire ends in a value or an error, never in a panic,
// and what the generated code accepts is read the same.
func FuzzResponseDecodesAsGenerated(f *testing.F) {
	f.Add([]byte{0x0a, 0x01, 'x'})
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte{0x08, 0x01, 0x15, 1, 2, 3, 4, 0x0a, 0x00})
	f.Add([]byte{0x0a, 0x01, '0', 0x08, 0x30}) // the field again, with another wire type
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := unmarshalResult(b)
		_, _ = cniError(b)
		var want cnirpc.Response
		if proto.Unmarshal(b, &want) != nil || err != nil {
			return
		}
		if !bytes.Equal(got, want.GetResult()) {
			t.Errorf("result % x, want % x", got, want.GetResult())
		}
	})
}

func FuzzFrameBody(f *testing.F) {
	f.Add(byte(0), byte(8), []byte{3, 1, 2})
	f.Add(byte(1), byte(0x28), []byte{0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, kind, flags byte, payload []byte) {
		b, err := frame{kind: kind, flags: flags, payload: payload}.body()
		if err == nil && len(b) > len(payload) {
			t.Error("body longer than its frame")
		}
	})
}

// FuzzBase64 holds unbase64 to the package of that name.
func FuzzBase64(f *testing.F) {
	for _, text := range []string{"", "QQ==", "QQ", "QUI=", "QUJD", "a", "+/+/", "QQ=", "====", "A=B="} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(text, "\r\n") {
			return // the library passes these over
		}
		bare := strings.TrimRight(text, "=")
		if len(text)-len(bare) > 2 {
			return
		}
		want, err := base64.RawStdEncoding.DecodeString(bare)
		got, ok := unbase64(text)
		if ok != (err == nil) || ok && !bytes.Equal(got, want) {
			t.Errorf("%q decoded to % x %v, want % x, error %v", text, got, ok, want, err)
		}
	})
}
