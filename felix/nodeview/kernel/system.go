package kernel

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/felix/nodeview"
)

// sockets tell which programs of the host run, without a look at its processes: each
// listens below the folder.
var sockets = map[string]string{"/run/NetworkManager/": "NetworkManager", "/run/systemd/netif/": "systemd-networkd"}

// System reads what a host has, below root: / but in a test. What cannot be read is
// left out. In a container of the host's network /proc has that network.
func System(root string) nodeview.System {
	read := func(path string) string {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return ""
		}
		return strings.Trim(string(text), "\n\x00 ")
	}
	s := nodeview.System{Sysctls: map[string]string{}, Label: read("proc/self/attr/current")}
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if value := read("proc/sys/" + key); value != "" {
			s.Sysctls[key] = value
		}
	}
	s.Strict = strict(root, read)
	table := read("proc/self/net/unix")
	for folder, program := range sockets {
		if strings.Contains(table, " "+folder) || strings.Contains(table, " /var"+folder) {
			s.Services = append(s.Services, program)
		}
	}
	slices.Sort(s.Services)
	return s
}

// strict lists the links whose reverse path filter is strict: the larger of a link's
// value and that of all counts. Pods' links are not among them, nor loopback.
func strict(root string, read func(string) string) []string {
	links, err := filepath.Glob(filepath.Join(root, "proc/sys/net/ipv4/conf/*/rp_filter"))
	if err != nil {
		return nil
	}
	all := read("proc/sys/net/ipv4/conf/all/rp_filter")
	var out []string
	for _, path := range links {
		link := filepath.Base(filepath.Dir(path))
		if slices.Contains([]string{"all", "default", "lo"}, link) || strings.HasPrefix(link, "cali") {
			continue
		}
		if max(all, read("proc/sys/net/ipv4/conf/"+link+"/rp_filter")) == "1" {
			out = append(out, link)
		}
	}
	slices.Sort(out)
	return out
}
