package kernel

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestSystem(t *testing.T) {
	root := t.TempDir()
	for path, text := range map[string]string{
		"proc/sys/net/ipv4/ip_forward": "1\n", "proc/self/attr/current": "system_u:system_r:container_t:s0:c1,c2\x00",
		"proc/sys/net/ipv4/conf/all/rp_filter": "0\n", "proc/sys/net/ipv4/conf/lo/rp_filter": "1\n", "proc/sys/net/ipv4/conf/eth1/rp_filter": "1\n",
		"proc/sys/net/ipv4/conf/eth0/rp_filter": "1\n", "proc/sys/net/ipv4/conf/bond0/rp_filter": "2\n", "proc/sys/net/ipv4/conf/cali1/rp_filter": "1\n",
		"proc/self/net/unix": "Num       RefCount Protocol Flags    Type St Inode Path\n" +
			"0000000000000000: 00000002 00000000 00010000 0001 01 23411 /run/NetworkManager/private-dhcp\n" +
			"0000000000000000: 00000002 00000000 00010000 0001 01 23412 /run/dbus/system_bus_socket\n",
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := System(root)
	if !maps.Equal(s.Sysctls, map[string]string{"net/ipv4/ip_forward": "1"}) || s.Label != "system_u:system_r:container_t:s0:c1,c2" {
		t.Errorf("%+v", s)
	}
	if !slices.Equal(s.Strict, []string{"eth0", "eth1"}) || !slices.Equal(s.Services, []string{"NetworkManager"}) {
		t.Errorf("%+v", s)
	}
	if here := System("/"); here.Sysctls["net/ipv4/ip_forward"] == "" {
		t.Errorf("of this host: %+v", here)
	}
	if none := System(t.TempDir()); len(none.Sysctls)+len(none.Strict)+len(none.Services)+len(none.Label) != 0 {
		t.Errorf("of nothing: %+v", none)
	}
}
