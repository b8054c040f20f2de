package bgptest

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// BIRD is a running BIRD 2.
type BIRD struct {
	host *Host
	ctl  string
	conf string
}

// StartBIRD runs BIRD with the usual protocols and the given ones. Use
// BIRDPeer for a session.
func (h *Host) StartBIRD(protocols string) *BIRD {
	h.t.Helper()
	b := &BIRD{host: h, ctl: filepath.Join(h.dir, "bird.ctl")}
	b.conf = h.Write("bird.conf", b.text(protocols))
	h.Start("bird", "-f", "-c", b.conf, "-s", b.ctl, "-P", filepath.Join(h.dir, "bird.pid"))
	Eventually(h.t, "bird answers", func() string {
		if _, err := os.Stat(b.ctl); err != nil {
			return err.Error()
		}
		return ""
	})
	return b
}

func (b *BIRD) text(protocols string) string {
	return fmt.Sprintf("log \"%s/bird.log\" all;\nrouter id %s;\nprotocol device { scan time 1; }\n%s", b.host.dir, b.host.V4, protocols)
}

// BIRDPeer is the text of a BGP protocol of that name; options go into its
// body. Both families are imported and exported whole.
func BIRDPeer(name, local string, as int, peer string, peerAS int, options string) string {
	return fmt.Sprintf(`protocol bgp %s {
  local %s as %d; neighbor %s as %d; multihop;
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 { import all; export all; };
  ipv6 { import all; export all; };
  %s
}
`, name, local, as, peer, peerAS, options)
}

// Reconfigure replaces the protocols.
func (b *BIRD) Reconfigure(protocols string) {
	b.host.t.Helper()
	b.host.Write("bird.conf", b.text(protocols))
	b.Ask("configure")
}

// Ask runs a command of birdc.
func (b *BIRD) Ask(words ...string) string {
	out, err := exec.Command("birdc", append([]string{"-s", b.ctl}, words...)...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	return string(out)
}

// Route shows what BIRD knows of a prefix, with all attributes.
func (b *BIRD) Route(prefix string) string { return b.Ask("show", "route", "for", prefix, "all") }

// Routes shows all routes with their attributes.
func (b *BIRD) Routes() string { return b.Ask("show", "route", "all") }

// Protocol shows one protocol in full.
func (b *BIRD) Protocol(name string) string { return b.Ask("show", "protocols", "all", name) }

// Log is everything BIRD logged.
func (b *BIRD) Log() string {
	out, _ := os.ReadFile(filepath.Join(b.host.dir, "bird.log"))
	return string(out)
}

// FRR is a running zebra and bgpd.
type FRR struct {
	host *Host
	dir  string
}

// StartFRR runs FRR with the given bgpd.conf.
func (h *Host) StartFRR(bgpd string) *FRR {
	h.t.Helper()
	dir, err := os.MkdirTemp("/tmp", "mt-frr-")
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	f := &FRR{host: h, dir: dir}
	f.write("zebra.conf", "hostname zebra\nlog file "+dir+"/zebra.log\n")
	f.write("bgpd.conf", "hostname bgpd\nlog file "+dir+"/bgpd.log\n"+bgpd)
	f.own()
	zserv := filepath.Join(dir, "zserv.api")
	h.Start("/usr/lib/frr/zebra", "-f", dir+"/zebra.conf", "-i", dir+"/zebra.pid", "-z", zserv, "--vty_socket", dir, "-P", "0")
	Eventually(h.t, "zebra listens", func() string {
		if _, err := os.Stat(zserv); err != nil {
			return err.Error()
		}
		return ""
	})
	if strings.Contains(bgpd, " bfd") {
		f.startBFD()
	}
	h.Start("/usr/lib/frr/bgpd", "-f", dir+"/bgpd.conf", "-i", dir+"/bgpd.pid", "-z", zserv, "--vty_socket", dir, "-P", "0")
	Eventually(h.t, "bgpd answers", Contains(func() string { return f.Ask("show bgp summary") }, "BGP"))
	return f
}

// startBFD runs FRR's BFD daemon, which bgpd asks for sessions.
func (f *FRR) startBFD() {
	f.host.t.Helper()
	f.write("bfdd.conf", "hostname bfdd\nlog file "+f.dir+"/bfdd.log\n")
	f.own()
	f.host.Start("/usr/lib/frr/bfdd", "-f", f.dir+"/bfdd.conf", "-i", f.dir+"/bfdd.pid", "-z", f.dir+"/zserv.api", "--vty_socket", f.dir,
		"--bfdctl", f.dir+"/bfdd.sock", "-P", "0")
	Eventually(f.host.t, "bfdd listens", func() string {
		_, err := os.Stat(f.dir + "/bfdd.vty")
		if err != nil {
			return err.Error()
		}
		return ""
	})
}

func (f *FRR) write(name, content string) {
	f.host.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(content), 0o644); err != nil {
		f.host.t.Fatal(err)
	}
}

// own gives the directory to the user FRR drops its privileges to.
func (f *FRR) own() {
	f.host.t.Helper()
	u, err := user.Lookup("frr")
	if err != nil {
		f.host.t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	files, _ := filepath.Glob(f.dir + "/*")
	for _, p := range append(files, f.dir) {
		if err := os.Chown(p, uid, gid); err != nil {
			f.host.t.Fatal(err)
		}
	}
}

// Ask runs a command of vtysh.
func (f *FRR) Ask(cmds ...string) string {
	args := []string{"--vty_socket", f.dir}
	for _, c := range cmds {
		args = append(args, "-c", c)
	}
	out, err := exec.Command("vtysh", args...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	return string(out)
}

// FRRPeer is the text of a bgpd.conf with one neighbour, both families and the
// given networks; options are further lines of the router.
func FRRPeer(as int, id, peer string, peerAS int, options string, networks ...string) string {
	var w strings.Builder
	fmt.Fprintf(&w, `router bgp %d
 bgp router-id %s
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
 neighbor %[3]s remote-as %[4]d
 neighbor %[3]s timers connect 1
 neighbor %[3]s advertisement-interval 0
`, as, id, peer, peerAS)
	if as != peerAS {
		fmt.Fprintf(&w, " neighbor %s ebgp-multihop 255\n", peer)
	}
	fmt.Fprint(&w, options)
	for _, af := range []string{"ipv4", "ipv6"} {
		fmt.Fprintf(&w, " address-family %s unicast\n  neighbor %s activate\n", af, peer)
		for _, n := range networks {
			if strings.Contains(n, ":") == (af == "ipv6") {
				fmt.Fprintf(&w, "  network %s\n", n)
			}
		}
		fmt.Fprint(&w, " exit-address-family\n")
	}
	return w.String()
}
