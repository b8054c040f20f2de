package router

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// rack is the configuration of n nodes that peer with one router, with or
// without everything a session can have.
func rack(n int, v6, rich bool) map[model.NodeName]bgp.Config {
	out := map[model.NodeName]bgp.Config{}
	for i := 1; i <= n; i++ {
		p := bgp.Peer{
			Address: netip.MustParseAddr("192.0.2.1"), Port: 179, ASN: 65101, LocalASN: 64512,
			LocalAddress: netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", 10+i)), Families: []model.Family{model.IPv4},
		}
		if v6 {
			p.Address, p.LocalAddress = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", 10+i))
			p.Families = []model.Family{model.IPv6, model.IPv4}
		}
		if rich {
			p.Password, p.TTLSecurity = model.NewSecret("never shown"), 1
			p.BFD = &bgp.BFD{Interval: 300 * time.Millisecond, Multiplier: 3}
		}
		out[model.NodeName(fmt.Sprintf("n%d", i))] = bgp.Config{ASN: 64512, ListenPort: 179, Peers: []bgp.Peer{p, {Address: netip.MustParseAddr("192.0.2.99"), InCluster: true}}}
	}
	return out
}

var pools = []model.Pool{{CIDR: netip.MustParsePrefix("10.244.0.0/16")}, {CIDR: netip.MustParsePrefix("fd00:244::/64")}}

// The routers themselves judge what is written for them.
func TestRoutersTakeTheirConfiguration(t *testing.T) {
	// FRR makes a place for its crash log, leaves it, and complains if another has one.
	bgpd := []string{"unshare", "-m", "sh", "-ec", `mount -t tmpfs tmpfs /var/tmp; exec /usr/lib/frr/bgpd "$@"`, "bgpd", "-S", "-C", "-f"}
	check := map[string][]string{"frr": bgpd, "sonic": bgpd, "bird": {"bird", "-p", "-c"}}
	for format, command := range check {
		for _, v6 := range []bool{false, true} {
			for _, rich := range []bool{false, true} {
				for _, listen := range []string{"", "192.0.2.0/24", "2001:db8::/64"} {
					if listen != "" && strings.Contains(listen, ":") != v6 {
						continue
					}
					name := fmt.Sprintf("%s v6=%v rich=%v listen=%s", format, v6, rich, listen)
					t.Run(name, func(t *testing.T) {
						rs := Routers(rack(3, v6, rich), pools, 100)
						if len(rs) != 1 || len(rs[0].Neighbors) != 3 {
							t.Fatalf("%+v", rs)
						}
						if listen != "" {
							rs[0].Listen = netip.MustParsePrefix(listen)
						}
						accepts(t, rs[0], format, command)
					})
				}
			}
		}
	}
}

// complains tells by the words, since bgpd ends well whatever it has read.
func complains(out []byte) bool {
	text := strings.ToLower(string(out))
	return strings.Contains(text, "error") || strings.Contains(text, "failed") || strings.Contains(text, "unknown command")
}

func accepts(t *testing.T, r Router, format string, command []string) {
	t.Helper()
	text, err := r.Write(format)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	evaluate := func() ([]byte, error) {
		return exec.Command(command[0], append(slices.Clone(command[1:]), path)...).CombinedOutput()
	}
	out, err := evaluate()
	if err != nil || complains(out) {
		t.Errorf("%v: %s\n%s", err, out, text)
	}
	// A checker that says yes to everything would prove nothing.
	if err := os.WriteFile(path, []byte(strings.Replace(text, "64512", "nonsense", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := evaluate(); err == nil && !complains(out) {
		t.Errorf("nonsense was accepted: %s", out)
	}
}

func TestEveryFormatNamesWhatItHasTo(t *testing.T) {
	for _, format := range Formats {
		text, err := Routers(rack(2, false, true), pools, 77)[0].Write(format)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"192.0.2.11", "192.0.2.12", "64512", "65101", "10.244.0.0/16", "77", password} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %s in\n%s", format, want, text)
			}
		}
		if strings.Contains(text, "never shown") {
			t.Errorf("%s: the password is shown", format)
		}
		if !strings.Contains(strings.ToLower(text), "bfd") {
			t.Errorf("%s: no BFD in\n%s", format, text)
		}
	}
	if _, err := (Router{}).Write("vrp"); err == nil {
		t.Error("an unknown format was written")
	}
}
