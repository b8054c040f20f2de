package kube

import (
	"net/netip"

	"github.com/google/go-cmp/cmp"
	"github.com/muslin-net/muslin/pkg/model"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

var compareValues = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b model.Secret) bool { return a.Equal(b) }),
}
