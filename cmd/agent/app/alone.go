package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/pkg/cnirpc/client"
)

// alonePatience is how long a start waits for another agent of the node to end, as
// one does whose pod was deleted in haste: the grace period of the DaemonSet and some.
const alonePatience = 15 * time.Second

// lockSuffix makes the name of the lock from the socket's.
const lockSuffix = ".lock"

// errNotAlone says that another agent runs on the node.
var errNotAlone = errors.New("another agent runs on this node, and two would undo each other's work")

// alone takes the node for this process, by a lock that the kernel gives back when the
// process ends, however it does. It waits for patience, at most until ctx ends, and
// then says who is in the way. Where no lock can be had, as on a full or read-only
// disk, it goes on without, as the agent does without its socket.
func (c Config) alone(ctx context.Context, patience time.Duration) (release func(), err error) {
	path := cmp.Or(c.Socket, client.DefaultSocket) + lockSuffix
	_ = os.MkdirAll(filepath.Dir(path), 0o755)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		c.Logger.Warn("another agent on this node would not be noticed", "error", err)
		return func() {}, nil
	}
	for end := time.Now().Add(patience); ; pause(ctx, 100*time.Millisecond) {
		switch err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case err == nil:
			return func() { _ = file.Close() }, nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			c.Logger.Warn("another agent on this node would not be noticed", "error", fmt.Errorf("lock %s: %w", path, err))
			return func() { _ = file.Close() }, nil
		case ctx.Err() != nil || time.Now().After(end):
			_ = file.Close()
			return nil, fmt.Errorf("%w: it holds %s; look for it by kubectl get pods -A --field-selector spec.nodeName=%s, or by fuser", errNotAlone, path, c.Node)
		}
	}
}
