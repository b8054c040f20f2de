package kubelab

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
)

// Bump is what a careful operator adds to the revision of a restored etcd, so that it
// is beyond all that clients have seen: what `etcdutl snapshot restore` suggests.
const Bump = 1_000_000_000

// RestoreEtcd makes the data directory of kubelab's etcd from the database of
// another's, which is not running. It runs the real etcdutl (hack/tools/etcdutl) of
// the source tree, with --bump-revision and --mark-compacted. The data directory has
// to be empty or absent.
func RestoreEtcd(ctx context.Context, source, backup, data string) error {
	const peer = "http://127.0.0.1:2380"
	command := exec.CommandContext(ctx, "go", "tool", "-modfile="+filepath.Join(source, "hack/tools/etcdutl/go.mod"),
		"etcdutl", "snapshot", "restore", filepath.Join(backup, "member/snap/db"), "--skip-hash-check", "--data-dir", data,
		"--initial-cluster", "default="+peer, "--initial-advertise-peer-urls", peer,
		"--bump-revision", strconv.Itoa(Bump), "--mark-compacted")
	command.Dir = source
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("restore etcd to %s: %w: %s", data, err, out)
	}
	return nil
}
