package app

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
)

// rootOnly lets nobody ask but root of this host: the kernel says whose the other
// end of the connection is. That is kubelet, the container runtime that forwards
// muslinctl's port, and an administrator; it is no local user, no pod of the host's
// network that runs as another user, and nobody from elsewhere, whatever address the
// agent listens on.
func rootOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		here, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if err := requestedByRoot(here, r.RemoteAddr); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func requestedByRoot(here net.Addr, from string) error {
	if here == nil {
		return fmt.Errorf("only root of this node may ask: the connection has no address")
	}
	server, err := netip.ParseAddrPort(here.String())
	if err != nil {
		return fmt.Errorf("only root of this node may ask: %w", err)
	}
	client, err := netip.ParseAddrPort(from)
	if err != nil {
		return fmt.Errorf("only root of this node may ask: %w", err)
	}
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue // a kernel without the family
		}
		if uid, ok := ownerOf(string(text), client, server); ok && uid == "0" {
			return nil
		} else if ok {
			return fmt.Errorf("only root of this node may ask, not user %s", uid)
		}
	}
	return fmt.Errorf("only root of this node may ask: no process here has %s", client)
}

// ownerOf finds whose socket is connected from one address to another in the text
// of /proc/net/tcp or tcp6. A socket that has been closed has no owner any more:
// only an established one counts.
func ownerOf(table string, from, to netip.AddrPort) (uid string, ok bool) {
	const local, remote, state, owner = 1, 2, 3, 7
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) > owner && f[state] == "01" && isAddr(f[local], from) && isAddr(f[remote], to) {
			return f[owner], true
		}
	}
	return "", false
}

// isAddr reports whether the kernel's text, words in host byte order in hexadecimal, is
// an address.
func isAddr(text string, a netip.AddrPort) bool {
	raw, mapped := a.Addr().Unmap().AsSlice(), a.Addr().Unmap().As16()
	return text == kernelText(raw, a.Port()) || text == kernelText(mapped[:], a.Port())
}

func kernelText(raw []byte, port uint16) string {
	var b strings.Builder
	for ; len(raw) >= 4; raw = raw[4:] {
		fmt.Fprintf(&b, "%08X", binary.NativeEndian.Uint32(raw))
	}
	return fmt.Sprintf("%s:%04X", b.String(), port)
}
