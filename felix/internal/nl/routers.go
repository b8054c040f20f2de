package nl

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// IgnoreRouters has the namespace take no IPv6 router advertisement and no
// redirect that comes by a link, whatever its forwarding settings: by default the
// kernel of a host believes both. Netlink cannot set them, so they are written
// below procSys (/proc/sys). A kernel without IPv6 has nothing to ignore.
func (n *NS) IgnoreRouters(procSys, link string) error {
	return n.Do(func() error {
		for _, name := range []string{"accept_ra", "accept_redirects"} {
			path := filepath.Join(procSys, "net/ipv6/conf", link, name)
			have, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) || string(bytes.TrimSpace(have)) == "0" {
				continue
			}
			if err == nil {
				err = os.WriteFile(path, []byte("0"), 0)
			}
			if err != nil {
				return fmt.Errorf("ignore routers on link %s: %w", link, err)
			}
		}
		return nil
	})
}
