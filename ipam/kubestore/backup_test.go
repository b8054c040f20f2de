package kubestore_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/lab/kubelab"
	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/kubestore"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
	"github.com/muslin-net/muslin/pkg/model"
)

// TestEtcdFromABackup puts a server's data back under a running allocator. It
// assigns at once, gives no address of a live endpoint away, and stores those
// again that the backup does not have. The restored data have revisions that clients
// have seen for other data, or, bumped, revisions beyond all of these.
func TestEtcdFromABackup(t *testing.T) {
	t.Parallel()
	for name, restore := range map[string]func(backup, data string) error{
		"copied": func(backup, data string) error { return os.CopyFS(data, os.DirFS(backup)) },
		"bumped": func(backup, data string) error {
			return kubelab.RestoreEtcd(t.Context(), kubetest.Root(), backup, data)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			etcdFromABackup(t, restore)
		})
	}
}

func etcdFromABackup(t *testing.T, restore func(backup, data string) error) {
	s := kubetest.StartWithCRDs(t)
	store, err := kubestore.New(s.Config(), kubestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := start(t, store, "n1", pool("p", "10.7.0.0/24", 26))
	if err := a.EnsureBlock(t.Context(), model.IPv4); err != nil {
		t.Fatal(err)
	}
	data, backup := filepath.Join(s.Dir, "etcd"), filepath.Join(t.TempDir(), "etcd")
	s.Kill()
	if err := os.CopyFS(backup, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	s.Restart(t)

	live, owner := []alloc.Live{}, map[netip.Addr]string{}
	plug := func(name string) {
		t.Helper()
		l := alloc.Live{Handle: "k8s-pod-network." + name, Attrs: map[string]string{"namespace": "default", "pod": name}}
		got, err := a.Assign(t.Context(), alloc.Request{Handle: l.Handle, V4: 1, Attrs: l.Attrs})
		if err != nil {
			t.Fatalf("assign to %s: %v", name, err)
		}
		if was := owner[got[0]]; was != "" {
			t.Fatalf("%s is given to %s while %s has it", got[0], l.Handle, was)
		}
		l.Addr, owner[got[0]] = got[0], l.Handle
		live = append(live, l)
		a.SetLive(live)
	}
	for i := range 20 {
		plug(fmt.Sprint("before", i))
	}
	s.Kill()
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if err := restore(backup, data); err != nil {
		t.Fatal(err)
	}
	s.Restart(t)
	for i := range 5 {
		plug(fmt.Sprint("after", i))
	}
	stored := func() (n int) {
		err := store.EachBlock(t.Context(), prefix("10.7.0.0/24"), func(b *ipam.Block, _ ipam.Revision) bool {
			for al := range b.Allocations() {
				if owner[al.Addr] == al.Handle {
					n++
				}
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for end := time.Now().Add(3 * time.Minute); stored() < len(live); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d live addresses are stored; %v", stored(), len(live), a.Problems())
		}
	}
	for _, l := range live {
		if _, _, err := store.Handles().Get(t.Context(), l.Handle); err != nil {
			t.Error(err)
		}
	}
}
