package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/muslin-net/muslin/felix/cleanup"
	"github.com/muslin-net/muslin/pkg/cnirpc/client"
	"github.com/muslin-net/muslin/pkg/cnirpc/spoolentry"
)

// ErrServing says that an agent runs on the node.
var ErrServing = errors.New("an agent serves and would put everything back")

// Cleanup removes everything of Muslin's from the node: kernel objects, CNI
// plugin and configuration, socket and recorded DELs. With pods the links of
// pods go, too, whether they run or not. It refuses while an agent serves, which
// would put everything back (ErrServing).
func Cleanup(ctx context.Context, c Config, pods bool) (cleanup.Removed, error) {
	socket := cmp.Or(c.Socket, client.DefaultSocket)
	var d net.Dialer
	if conn, err := d.DialContext(ctx, "unix", socket); err == nil {
		return cleanup.Removed{}, errors.Join(
			fmt.Errorf("clean up node: %w: delete the DaemonSet, or keep it off this node (socket %s)", ErrServing, socket),
			conn.Close())
	}
	removed, err := cleanup.Run(ctx, cleanup.Options{Pods: pods})
	return removed, errors.Join(err, Uninstall(c), absent(os.Remove(socket)), absent(os.Remove(socket+lockSuffix)),
		absent(os.RemoveAll(cmp.Or(c.Spool, spoolentry.DefaultDir))), absent(os.Remove(c.statePath())), absent(os.Remove(c.relayedPath())))
}

func absent(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
