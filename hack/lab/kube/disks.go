package kube

import (
	"encoding/base64"
	"net/netip"

	"sigs.k8s.io/yaml"

	"github.com/muslin-net/muslin/hack/lab/machine"
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
	kubeDir = "/etc/kubernetes"
	pkiDir  = kubeDir + "/pki" // the control plane's keys
)

// disks writes what is on the machines before they boot.
type disks struct {
	site      *machine.Site
	topology  *topology.Topology
	light     Light
	authority *authority
}

// server is the API server's URL, as all machines use it.
func (d *disks) server() string {
	return "https://" + netip.AddrPortFrom(d.topology.ControlPlane.Address.Main(), 6443).String()
}

// kubeconfig issues a client certificate and returns a kubeconfig that holds
// everything, so that it can be read in any mount namespace.
func (d *disks) kubeconfig(who identity) (string, error) {
	pair, err := d.authority.issue(who)
	if err != nil {
		return "", err
	}
	base64 := base64.StdEncoding.EncodeToString
	config := map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": d.site.Fabric.Lab,
		"clusters": []any{map[string]any{"name": d.site.Fabric.Lab, "cluster": map[string]any{
			"server": d.server(), "certificate-authority-data": base64(d.authority.certPEM),
		}}},
		"users": []any{map[string]any{"name": who.name, "user": map[string]any{
			"client-certificate-data": base64(pair.cert), "client-key-data": base64(pair.key),
		}}},
		"contexts": []any{map[string]any{"name": d.site.Fabric.Lab, "context": map[string]any{
			"cluster": d.site.Fabric.Lab, "user": who.name,
		}}},
	}
	return toYAML(config)
}

func toYAML(value any) (string, error) {
	data, err := yaml.Marshal(value)
	return string(data), err
}

// dns is the name server of pods. Nobody serves there until somebody makes a Service with that address.
func dns(t *topology.Topology) netip.Addr {
	if t.Core.V4.IsValid() {
		return netip.MustParseAddr(dnsIP4)
	}
	return netip.MustParseAddr(dnsIP6)
}
