package router

import (
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/hack/lab/topology"
)

var update = flag.Bool("update", false, "write the goldens anew")

// The goldens are read by the real programs too, as a second authority.
func TestRouterConfigurations(t *testing.T) {
	for _, name := range []string{"two-racks", "two-racks-dual", "two-racks-v6", "many-light", "two-routers"} {
		plan, err := topology.Read("../topologies/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		for _, router := range plan.Routers {
			t.Run(name+"/"+router.Name, func(t *testing.T) {
				got, err := Config(plan, router.Name)
				if err != nil {
					t.Fatal(err)
				}
				golden := filepath.Join("testdata", name+"-"+router.Name+".conf")
				if *update {
					if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), got); diff != "" {
					t.Errorf("configuration (-want +got):\n%s", diff)
				}
				checkBySoftware(t, router.Kind, got)
			})
		}
	}
}

// checkBySoftware has the routing program itself parse the configuration.
func checkBySoftware(t *testing.T, kind topology.RouterKind, config string) {
	t.Helper()
	// Not t.TempDir: bgpd reads it as a user that may not enter there.
	dir, err := os.MkdirTemp("", "mt-router-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "router.conf")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	argv := []string{"bird", "-p", "-c", file}
	if kind == topology.FRR {
		// It makes a place for its crash log, leaves it, and complains if another has one.
		argv = []string{"unshare", "-m", "sh", "-ec", `mount -t tmpfs tmpfs /var/tmp; exec /usr/lib/frr/bgpd "$@"`, "bgpd", "-C", "-f", file}
	}
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	// bgpd complains and goes on, so every word of it counts.
	if err != nil || kind == topology.FRR && len(out) > 0 {
		t.Errorf("%v: %v\n%s", argv, err, out)
	}
}

// Names may have dashes, which BIRD's own names may not.
func TestBIRDTakesNamesWithDashes(t *testing.T) {
	plan, err := topology.Read("../topologies/two-racks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	plan.Racks[0].Name, plan.Routers[1].Name = "r-1", "tor-2"
	config, err := Config(plan, "tor1")
	if err != nil {
		t.Fatal(err)
	}
	checkBySoftware(t, topology.BIRD, config)
}

// A router ID is four octets, also where no router has an IPv4 address.
func TestRouterIDWithoutIPv4(t *testing.T) {
	plan, err := topology.Read("../topologies/two-racks-v6.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if id := identifier(plan.Router("tor2")); id != netip.MustParseAddr("0.0.0.2") {
		t.Errorf("tor2 has the router ID %s", id)
	}
}
