package jsonscan_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/pkg/cnirpc/jsonscan"
)

// FuzzObject holds Object to encoding/json: the same texts are objects, and their
// strings are the same.
func FuzzObject(f *testing.F) {
	for _, text := range []string{
		`{}`, ` { "a" : "b" , "c":[1,-2.5e+7,{"x":null}], "d":true,"a":"again" } `, `{"a":"\u00e9\ud83d\ude00\ud83d\n\/\"\\é"}`,
		"", "null", "[]", `"a"`, "{", `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":01}`, `{"a":1.}`, `{"a":-}`, `{"a":1e}`, `{"a":"` + "\x01" + `"}`,
		`{"a":"\x"}`, `{"a":"\u12"}`, `{"a":tru}`, `{} x`, `{"a":[1 2]}`, `{"` + "\xff" + `":"` + "\xcb\xcb" + `"}`, "\x00\xff", `{"a":"\ud800\u0041"}`,
		`{"a":"\u+123"}`, `{"a":"\ud83d\u+e00"}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var want map[string]json.RawMessage
		wantErr := json.Unmarshal(text, &want)
		got := map[string]jsonscan.Value{}
		err := jsonscan.Object(text, func(name []byte, v jsonscan.Value) { got[string(name)] = v })
		if strings.Count(string(text), "[")+strings.Count(string(text), "{") > 90 {
			return // only the levels that we take
		}
		if ok := wantErr == nil && want != nil; ok != (err == nil) {
			t.Fatalf("%q: error %v, want %v", text, err, wantErr)
		}
		if err != nil {
			return
		}
		if len(got) != len(want) {
			t.Errorf("%q: members %v, want %v", text, got, want)
		}
		for name, raw := range want {
			v, ok := got[name]
			var s string
			if isString := raw[0] == '"'; !ok || isString != v.String {
				t.Errorf("%q: member %q is %+v, want %s", text, name, v, raw)
			} else if isString && (json.Unmarshal(raw, &s) != nil || string(v.Text) != s) {
				t.Errorf("%q: member %q is %q, want %q", text, name, v.Text, s)
			} else if !isString && string(v.Text) != string(raw) {
				t.Errorf("%q: member %q is %q, want %q", text, name, v.Text, raw)
			}
		}
	})
}

func TestObjectBoundsItsDepth(t *testing.T) {
	ignore := func([]byte, jsonscan.Value) {}
	if err := jsonscan.Object([]byte(`{"a":`+strings.Repeat("[", 1<<20)), ignore); err == nil {
		t.Error("a million levels are no error")
	}
	for levels, want := range map[int]bool{1: true, 100: true, 101: false} {
		err := jsonscan.Object([]byte(`{"a":`+strings.Repeat("[", levels)+"1"+strings.Repeat("]", levels)+"}"), ignore)
		if (err == nil) != want {
			t.Errorf("%d levels inside the object: error %v", levels, err)
		}
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("\x00\x1f\"\\/é\u2028\U0001f600\xff\x7f")
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		b := jsonscan.AppendString([]byte("x"), s)
		if err := json.Unmarshal(b[1:], &got); err != nil || got != strings.ToValidUTF8(s, "\ufffd") && got != string([]rune(s)) {
			t.Errorf("%q came back as %q from %s: %v", s, got, b, err)
		}
	})
}
