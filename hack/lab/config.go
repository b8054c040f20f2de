package lab

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/muslin-net/muslin/hack/lab/topology"
)

// The cluster's service network and the addresses of two services in it: kubernetes, and the cluster's DNS.
const (
	serviceNet4 = "10.96.0.0/16"
	serviceNet6 = "fd00:10:96::/112"
	serviceIP4  = "10.96.0.1"
	serviceIP6  = "fd00:10:96::1"
	dnsIP4      = "10.96.0.10"
	dnsIP6      = "fd00:10:96::a"
)

// Paths inside machines.
const (
	kubeDir        = "/etc/kubernetes"
	kubeconfigFile = kubeDir + "/kubeconfig"
)

func (l *Lab) imageDir() string { return filepath.Join(l.dir, "images") }

// hasIPv6 tells whether the lab has IPv6, alone or beside IPv4.
func (l *Lab) hasIPv6() bool { return l.topology.Core.V6.IsValid() }

// DNS is the name server of pods. Nobody serves there until somebody makes a Service with that address.
func (l *Lab) DNS() netip.Addr {
	if l.topology.Core.V4.IsValid() {
		return netip.MustParseAddr(dnsIP4)
	}
	return netip.MustParseAddr(dnsIP6)
}

// writeConfiguration writes the state directory: certificates, and the disk
// and spec of every machine.
func (l *Lab) writeConfiguration(context.Context) error {
	for _, dir := range []string{l.dir, l.imageDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := l.saveState(); err != nil {
		return err
	}
	if err := l.storeImages(append(toolArchives(l.binDir()), l.options.Images...)); err != nil {
		return err
	}
	authority, err := newAuthority(l.name + "-lab")
	if err != nil {
		return err
	}
	admin, err := l.kubeconfig(authority, identity{name: "lab-admin", groups: []string{"system:masters"}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(l.Kubeconfig(), []byte(admin), 0o600); err != nil {
		return err
	}
	if err := l.makeOutside(); err != nil {
		return err
	}
	for _, router := range l.topology.Routers {
		if err := l.makeRouter(router); err != nil {
			return err
		}
	}
	if err := l.makeControlPlane(authority); err != nil {
		return err
	}
	for _, node := range l.topology.Nodes {
		makeNode := l.makeFullNode
		if node.Kind == topology.Light {
			makeNode = l.makeLightNode
		}
		if err := makeNode(authority, node); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) makeOutside() error {
	name := l.topology.Outside.Name
	if err := l.writeDisk(name, nil, []content{l.hostsFile()}); err != nil {
		return err
	}
	return l.writeSpec(name, l.newSpec(name))
}

// hostsFile lets every machine find the others by name.
func (l *Lab) hostsFile() content {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, machine := range l.topology.Machines() {
		address := l.topology.Links(machine)[0].Address
		for _, a := range address.All() {
			fmt.Fprintf(&b, "%s %s\n", a, machine)
		}
	}
	return content{"/etc/hosts", b.String()}
}

// server is the API server's URL, as all machines use it.
func (l *Lab) server() string {
	return "https://" + netip.AddrPortFrom(l.topology.ControlPlane.Address.Main(), 6443).String()
}

// kubeconfig issues a client certificate and returns a kubeconfig that holds
// everything, so that it can be read in any mount namespace.
func (l *Lab) kubeconfig(authority *authority, who identity) (string, error) {
	pair, err := authority.issue(who)
	if err != nil {
		return "", err
	}
	base64 := base64.StdEncoding.EncodeToString
	config := map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": l.name,
		"clusters": []any{map[string]any{"name": l.name, "cluster": map[string]any{
			"server": l.server(), "certificate-authority-data": base64(authority.certPEM),
		}}},
		"users": []any{map[string]any{"name": who.name, "user": map[string]any{
			"client-certificate-data": base64(pair.cert), "client-key-data": base64(pair.key),
		}}},
		"contexts": []any{map[string]any{"name": l.name, "context": map[string]any{
			"cluster": l.name, "user": who.name,
		}}},
	}
	return toYAML(config)
}

func toYAML(value any) (string, error) {
	data, err := yaml.Marshal(value)
	return string(data), err
}
