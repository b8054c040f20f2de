package app

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// Root of the host is answered, and no other user of it.
func TestOnlyRootIsShown(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		t.Run(listen, func(t *testing.T) {
			l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", listen)
			if err != nil {
				t.Fatal(err)
			}
			s := &httptest.Server{Listener: l, Config: &http.Server{Handler: rootOnly(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "secret") }))}}
			s.Start()
			defer s.Close()
			host := "127.0.0.1"
			if listen == "[::1]:0" {
				host = "::1"
			}
			for uid, want := range map[uint32]string{0: "secret", 65534: "only root of this node may ask, not user 65534"} {
				cmd := exec.CommandContext(t.Context(), "bash", "-c", `exec 3<>/dev/tcp/$0/$1; printf 'GET /show HTTP/1.0\r\n\r\n' >&3; cat <&3`,
					host, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
				out, err := cmd.CombinedOutput()
				if err != nil || !strings.Contains(string(out), want) || uid != 0 && strings.Contains(string(out), "secret") {
					t.Errorf("user %d: %v: %s", uid, err, out)
				}
			}
		})
	}
}

func TestOwnerOfASocket(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2395 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0000000000000000 100 0 0 10 0
   1: 0100007F:B3F2 0100007F:2395 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:2395 0100007F:B3F2 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0000000000000000 20 4 30 10 -1
   3: 0100007F:B3F4 0100007F:2395 05 00000000:00000000 00:00000000 00000000     0        0 0 1 0000000000000000 20 4 30 10 -1
`
	server := netip.MustParseAddrPort("127.0.0.1:9109")
	for client, want := range map[string]string{"127.0.0.1:46066": "1000", "[::ffff:127.0.0.1]:46066": "1000", "127.0.0.1:46068": "", "192.0.2.1:46066": ""} {
		if got, _ := ownerOf(table, netip.MustParseAddrPort(client), server); got != want {
			t.Errorf("%s: %q, want %q", client, got, want)
		}
	}
}
