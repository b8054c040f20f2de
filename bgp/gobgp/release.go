package gobgp

import (
	"fmt"
	"runtime/debug"
	"strings"

	gobgp "github.com/osrg/gobgp/v4/pkg/server"
)

// module is where the speaker comes from.
const module = "github.com/osrg/gobgp/"

// Release names the GoBGP in this program: "v4.8.0", or "v4.8.0 with 6 patches"
// (third_party/gobgp). A test binary does not know versions.
func Release() string {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if strings.HasPrefix(m.Path, module) {
				version = m.Version
			}
		}
	}
	if n := len(patches()); n > 0 {
		return fmt.Sprintf("%s with %d patches", version, n)
	}
	return version
}

// patches names the patches in this program's GoBGP. The release has no such
// method: hack/thirdparty adds it.
func patches() []string {
	if p, ok := any((*gobgp.BgpServer)(nil)).(interface{ Patches() []string }); ok {
		return p.Patches()
	}
	return nil
}
