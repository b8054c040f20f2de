package kind

import "testing"

func TestFieldsOfAName(t *testing.T) {
	for _, c := range []struct{ kind, name, want string }{
		{"ippool", "a", "metadata.name=a"},
		{"np", "n-k8s-p-eth0", "metadata.name=n-k8s-p-eth0"},
		{"np", "a,b=c", `metadata.name=a\,b\=c`},
		{"wep", "web-0", "metadata.name=web-0"},
		{"wep", endpointName("n", "p"), "metadata.name=p,spec.nodeName=n"},
		{"wep", endpointName("n-1.example", "a--b-k8s-0"), "metadata.name=a--b-k8s-0,spec.nodeName=n-1.example"},
		{"wep", "n-k8s-p-net1", "metadata.name=n-k8s-p-net1"},
	} {
		if got := MustFind(c.kind).Fields(c.name); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.kind, c.name, got, c.want)
		}
	}
}
