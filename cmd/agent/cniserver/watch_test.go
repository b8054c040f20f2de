package cniserver_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/cmd/agent/cniserver"
	"github.com/muslin-net/muslin/pkg/cnirpc/client"
	"github.com/muslin-net/muslin/pkg/cnirpc/spoolentry"
)

// TestNoInotifyInstanceLeft has a server run where the kernel gives no instance of
// inotify, as when programs of root have taken fs.inotify.max_user_instances of them.
// A user namespace has such a limit of its own, which takes nothing from others.
func TestNoInotifyInstanceLeft(t *testing.T) {
	if os.Getenv("MUSLIN_NO_INOTIFY") == "" {
		inner := exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "sh", "-ec",
			`echo 0 >/proc/sys/user/max_inotify_instances; exec "$0" "$@"`, os.Args[0], "-test.run=^TestNoInotifyInstanceLeft$", "-test.v")
		inner.Env = append(os.Environ(), "MUSLIN_NO_INOTIFY=1")
		if out, err := inner.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if fd, err := unix.InotifyInit1(unix.IN_CLOEXEC); !errors.Is(err, unix.EMFILE) {
		t.Fatalf("an instance was made: %d, %v", fd, err)
	}
	var log bytes.Buffer
	n := start(t, newRooms(), func(o *cniserver.Options) {
		o.DrainInterval, o.Logger = time.Hour, slog.New(slog.NewTextHandler(&log, nil))
	})
	n.must(t, client.Add, request("c1", "a"))
	if err := spoolentry.Write(n.spool, request("c1", "a"), nil); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the record to be done", func() bool { return len(n.left()) == 0 })
	n.stop()
	if got := log.String(); strings.Count(got, "max_user_instances") != 1 {
		t.Errorf("want it told once:\n%s", got)
	}
}
