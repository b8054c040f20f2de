package kubetest

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Request is one that a server was asked.
type Request struct {
	User, Verb                                 string
	Group, Resource, Sub, Namespace, Name, URI string
	Allowed                                    bool // by the authorizer
	Status                                     int  // of the answer; 200 of a watch that began
}

// StartAudited is Start for a server that notes its requests; asked gives those so
// far of users that begin so.
func StartAudited(t testing.TB, more ...string) (s *Server, requested func(user string) []Request) {
	t.Helper()
	dir := t.TempDir()
	policy, log := filepath.Join(dir, "policy"), filepath.Join(dir, "log")
	err := os.WriteFile(policy, []byte(`{"apiVersion":"audit.k8s.io/v1","kind":"Policy","rules":[{"level":"Metadata"}],"omitStages":["RequestReceived"]}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	s = Start(t, append(more, "--audit-policy-file="+policy, "--audit-log-path="+log)...)
	return s, func(user string) []Request {
		t.Helper()
		f, err := os.Open(log)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var out []Request
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if r, ok := readRequest(lines.Bytes()); ok && strings.HasPrefix(r.User, user) {
				out = append(out, r)
			}
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
		return out
	}
}

func readRequest(line []byte) (Request, bool) {
	var e struct {
		Verb        string `json:"verb"`
		RequestURI  string `json:"requestURI"`
		User        struct{ Username string }
		ObjectRef   *struct{ Resource, Namespace, Name, APIGroup, Subresource string }
		Response    struct{ Code int } `json:"responseStatus"`
		Annotations map[string]string  `json:"annotations"`
	}
	if json.Unmarshal(line, &e) != nil || e.ObjectRef == nil {
		return Request{}, false // the last line may be half written
	}
	o := e.ObjectRef
	return Request{
		User: e.User.Username, Verb: e.Verb, URI: e.RequestURI,
		Group: o.APIGroup, Resource: o.Resource, Sub: o.Subresource, Namespace: o.Namespace, Name: o.Name,
		Allowed: e.Annotations["authorization.k8s.io/decision"] == "allow", Status: e.Response.Code,
	}, true
}
