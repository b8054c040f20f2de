package client

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// FuzzHeaders holds readHeaders to what golang.org/x/net writes for a peer
// without a dynamic table, and appendHeader to what it reads.
func FuzzHeaders(f *testing.F) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	f.Add("grpc-status", "0")
	f.Add("content-type", "application/grpc")
	f.Add("grpc-message", "no pool gives this pod an address; 100 %")
	f.Add("x", string(every))
	f.Add("", "")
	f.Fuzz(func(t *testing.T, name, value string) {
		var b bytes.Buffer
		e := hpack.NewEncoder(&b)
		e.SetMaxDynamicTableSizeLimit(0)
		for _, h := range []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: name, Value: value}, {Name: name, Value: value, Sensitive: true}} {
			if err := e.WriteField(h); err != nil {
				t.Fatal(err)
			}
		}
		var got []hpack.HeaderField
		if err := readHeaders(b.Bytes(), func(name, value string) { got = append(got, hpack.HeaderField{Name: name, Value: value}) }); err != nil {
			t.Fatalf("% x: %v", b.Bytes(), err)
		}
		if len(got) != 3 || got[0].Name != ":status" || got[0].Value != "200" {
			t.Fatalf("headers %v", got)
		}
		for _, h := range got[1:] {
			if h.Name != name && (h.Name != "" || !inStaticTable(name)) || h.Name == name && h.Value != value {
				t.Errorf("header %q: %q came as %q: %q", name, value, h.Name, h.Value)
			}
		}
		if len(name) < 127 && len(value) < 127 {
			read, err := hpack.NewDecoder(0, nil).DecodeFull(appendHeader(nil, name, value))
			if err != nil || len(read) != 1 || read[0].Name != name || read[0].Value != value {
				t.Errorf("%q: %q was read as %v, error %v", name, value, read, err)
			}
		}
	})
}

// inStaticTable tells whether a header is written by its number in the table.
func inStaticTable(name string) bool {
	var b bytes.Buffer
	if err := hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: name, Value: "\x00", Sensitive: true}); err != nil {
		return false
	}
	return b.Bytes()[0]&0x0f != 0
}

// Whatever comes off the wire ends in headers or an error, never in a panic, and
// strings in Huffman's code are those that golang.org/x/net reads.
func FuzzHeaderBlock(f *testing.F) {
	f.Add([]byte{0x88, 0x5f, 0x8b, 0x1d, 0x75, 0xd0, 0x62, 0x0d, 0x26, 0x3d, 0x4c, 0x4d, 0x65, 0x64})
	f.Add([]byte{0x3f, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Add([]byte{0x00, 0x81, 0xff, 0x00})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = readHeaders(b, func(string, string) {})
		want, err := hpack.HuffmanDecodeToString(b)
		got, ok := unhuffman(b)
		if ok != (err == nil) || ok && got != want {
			t.Errorf("% x decoded to %q %v, want %q, error %v", b, got, ok, want, err)
		}
	})
}
