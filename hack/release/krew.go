package release

import (
	"fmt"
	"strings"
)

// krewManifest describes muslinctl to krew, the manager of kubectl's plugins, as in
// https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest/.
func krewManifest(o Options, clients []client) file {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: muslin
spec:
  version: %s
  homepage: https://github.com/muslin-net/muslin
  shortDescription: Look into a BGP-routed pod network
  description: |
    Shows and changes the objects, nodes, sessions, routes and addresses of
    Muslin, a BGP-routed pod network with Calico's API, explains why a pod is not
    reached, and checks the cluster as a whole.
  platforms:
`, o.Version)
	for _, c := range clients {
		fmt.Fprintf(&b, `  - selector:
      matchLabels:
        os: %s
        arch: %s
    uri: %s/%s
    sha256: %s
    bin: %s
`, c.OS, c.Arch, o.URL, c.name, c.sha256(), c.bin)
	}
	return file{name: "muslin.krew.yaml", data: []byte(b.String())}
}
