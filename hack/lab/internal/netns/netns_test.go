package netns

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestCreateEnterDelete(t *testing.T) {
	prefix := fmt.Sprintf("mt-netns-%08x-", rand.Uint32())
	a, b := prefix+"a", prefix+"b"
	t.Cleanup(func() { _ = errors.Join(Delete(a), Delete(b)) })
	for _, name := range []string{b, a} {
		if err := Create(name); err != nil {
			t.Fatal(err)
		}
	}
	names, err := List(prefix)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{a, b}, names); diff != "" {
		t.Errorf("namespaces (-want +got):\n%s", diff)
	}
	if err := Create(a); err == nil {
		t.Error("a second namespace of the same name was made")
	}
	if !Exists(a) {
		t.Error("the failed second Create took the first namespace away")
	}
	var inside unix.Stat_t
	if err := Do(a, func() error { return unix.Stat("/proc/thread-self/ns/net", &inside) }); err != nil {
		t.Fatal(err)
	}
	var named unix.Stat_t
	if err := unix.Stat(Path(a), &named); err != nil {
		t.Fatal(err)
	}
	if inside.Ino != named.Ino {
		t.Errorf("Do ran in namespace %d, want %d", inside.Ino, named.Ino)
	}
	for range 2 { // the second time it is absent
		if err := Delete(a); err != nil {
			t.Error(err)
		}
	}
	if Exists(a) {
		t.Error("a deleted namespace exists")
	}
}

func TestHandleSeesItsOwnNamespace(t *testing.T) {
	name := fmt.Sprintf("mt-netns-%08x-h", rand.Uint32())
	t.Cleanup(func() { _ = Delete(name) })
	if err := Create(name); err != nil {
		t.Fatal(err)
	}
	handle, err := Handle(name)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	links, err := handle.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if kind := link.Type(); kind == "veth" || kind == "bridge" {
			t.Errorf("a new namespace has %s of type %s", link.Attrs().Name, kind)
		}
	}
	lo, err := handle.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if lo.Attrs().Flags&1 == 0 {
		t.Error("lo is not up")
	}
}
