package kind

import (
	"net/netip"
	"strings"
)

// PodIPs are the addresses in a pod's status.
func PodIPs(pod map[string]any) []netip.Addr {
	var out []netip.Addr
	ips, _ := At(pod, "status.podIPs").([]any)
	for _, x := range ips {
		m, _ := x.(map[string]any)
		if a, err := netip.ParseAddr(strings.TrimSpace(Text(m, "ip", ""))); err == nil {
			out = append(out, a)
		}
	}
	return out
}
