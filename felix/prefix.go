package felix

import (
	"cmp"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// DefaultInterfacePrefix is how the names of pod interfaces start (Calico
// interfacePrefix).
const DefaultInterfacePrefix = "cali"

// hashDigits is what follows the prefix; a link's name has 15 bytes at most.
const hashDigits = 11

// InterfacePrefix is how the names of interfaces of pods to come start on a node:
// the first of FelixConfiguration interfacePrefix, a list with commas.
func InterfacePrefix(s model.Snapshot, self model.NodeName) string {
	first, _ := newPrefixes(settings(Input{Self: self, Snapshot: s}))
	return first[0]
}

// newPrefixes are those of the configuration, at least one, and what is wrong with
// it.
func newPrefixes(config model.FelixConfiguration) (out []string, wrong string) {
	for _, p := range strings.Split(cmp.Or(config.InterfacePrefix, DefaultInterfacePrefix), ",") {
		if p == "" || len(p) > 15-hashDigits || strings.ContainsAny(p, "/*\" \t\n:%") {
			return []string{DefaultInterfacePrefix}, p + " is no prefix of 1 to 4 bytes that a link's name can have; " + DefaultInterfacePrefix + " is used"
		}
		out = append(out, p)
	}
	return out, ""
}

// InterfacePrefixes are how the names of all interfaces of pods on a node start:
// those of FelixConfiguration interfacePrefix, that of pods to come first, and those
// that pods were attached under earlier, which keep their names.
func InterfacePrefixes(s model.Snapshot, self model.NodeName, pods []model.Endpoint) []string {
	out, _ := newPrefixes(settings(Input{Self: self, Snapshot: s}))
	return withEarlier(out, pods)
}

// findPrefixes finds those of the node, and what is wrong with the configuration.
func (c *builder) findPrefixes() {
	out, wrong := newPrefixes(c.config)
	if wrong != "" {
		c.problem(model.Ref{Kind: "FelixConfiguration", Name: cmp.Or(c.config.Name, "default")}, "spec.interfacePrefix", "InvalidValue", wrong)
	}
	c.prefixes = withEarlier(out, c.Endpoints)
}

// withEarlier adds the prefixes of pods to those of the configuration.
func withEarlier(out []string, pods []model.Endpoint) []string {
	for _, e := range pods {
		covered := slices.ContainsFunc(out, func(p string) bool { return strings.HasPrefix(e.HostInterface, p) })
		if n := len(e.HostInterface) - hashDigits; n > 0 && !covered {
			out = append(out, e.HostInterface[:n])
		}
	}
	slices.Sort(out[1:])
	return slices.Compact(out)
}

// isPods says whether a link has a pod's name.
func (c *builder) isPods(name string) bool {
	return slices.ContainsFunc(c.prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}
