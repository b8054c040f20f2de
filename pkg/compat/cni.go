package compat

import (
	"encoding/json"
	"regexp"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// plugin are the keys of the plugin's part of a CNI configuration.
var plugin = Kind{Fields: join(
	each(effect, `name cniVersion type mtu num_queues ipam.type ipam.assign_ipv4 ipam.assign_ipv6 ipam.ipv4_pools ipam.ipv6_pools ipam.subnet
		ipam.ranges container_settings.allow_ip_forwarding feature_control.ip_addrs_no_ipam dns capabilities args runtimeConfig
		prevResult socket spool cni.dev/valid-attachments cni.dev/attachments`),
	map[string]Field{
		"feature_control.floating_ips": without("say floatingIPs: Enabled in FelixConfiguration default"),
		"policy.type":                  without("what is enforced does not depend on it", "k8s"),
		"datastore_type":               without(notEtcd, "kubernetes"),
		"nodename":                     without(agentsNode),
		"nodename_file":                without(agentsNode),
		"nodename_file_optional":       without(agentsNode),
		"hostname":                     without(agentsNode),
		"kubernetes.kubeconfig":        without(noToken),
		"kubernetes.node_name":         without(agentsNode),
		"kubernetes.k8s_api_root":      without(noToken),
		"include_default_routes":       without("a pod has default routes always", "false"),
		"policy_setup_timeout_seconds": without("a pod that starts is policed already", "0"),
		"endpoint_status_dir":          without("a pod that starts is policed already"),
		"ready_gates":                  without("ADD fails while the agent cannot serve it"),
		"readiness_gates":              without("ADD fails while the agent cannot serve it"),
		"log_level":                    without("set MUSLIN_LOG_LEVEL in the environment of the DaemonSet"),
		"subnet":                       without("it belongs below ipam"),
	},
	each(without("the agent logs, not the plugin"), "log_file_path log_file_max_size log_file_max_age log_file_max_count"),
	each(without(notEtcd), `etcd_endpoints etcd_authority etcd_scheme etcd_key_file etcd_cert_file etcd_ca_cert_file
		etcd_discovery_srv`),
)}

const (
	agentsNode = "the node is the agent's"
	noToken    = "the plugin asks the agent, and has no token"
)

// placeholders stand for values in the text that Calico's manifests have.
var placeholders = regexp.MustCompile(`:\s*__[A-Z_]+__`)

// CNI gives the keys that have no effect in a network configuration: of the
// plugins named muslin or calico in a list, or of one plugin alone. object is
// what has the text. What is no such configuration has none.
func CNI(object model.Ref, text []byte) []model.Problem {
	var list struct {
		Plugins []map[string]any `json:"plugins"`
		Type    string           `json:"type"`
	}
	text = placeholders.ReplaceAll(text, []byte(": 0"))
	if json.Unmarshal(text, &list) != nil {
		return nil
	}
	if list.Type != "" {
		var one map[string]any
		_ = json.Unmarshal(text, &one) // it has just been read
		list.Plugins = append(list.Plugins, one)
	}
	var out []model.Problem
	for _, p := range list.Plugins {
		if name, _ := p["type"].(string); slices.Contains([]string{"muslin", "calico"}, name) {
			out = append(out, plugin.fieldsBelow(object, "plugin "+name, p)...)
		}
	}
	return out
}
