package nftw

import (
	"bytes"
	"fmt"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
)

// dumper reads of a table what is compared, and nothing else: the library makes a value of each
// expression of each rule, and of each element.
type dumper struct {
	*nl.Conn
	table string
}

// nfgenmsg is how many bytes are before the attributes of a message.
const nfgenmsg = 4

// request asks for all of a kind; names are its first attributes, from 1.
func (d dumper) request(kind uint16, names ...string) []byte {
	b := append(nl.AppendHeader(nil, unix.NFNL_SUBSYS_NFTABLES<<8|kind, 0), unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0)
	for i, name := range names {
		b = nl.AppendAttr(b, uint16(i+1), append([]byte(name), 0))
	}
	return nl.EndMessage(b, 0)
}

// attrs calls each for the attributes of a message.
func attrs(m nl.Message, each func(kind uint16, data []byte)) {
	if len(m.Data) >= nfgenmsg {
		nl.Attrs(m.Data[nfgenmsg:], each)
	}
}

// marks gives those of all rules, by the name of their chain, in order.
func (d dumper) marks() (map[string][]string, error) {
	out := map[string][]string{}
	err := d.Dump(d.request(unix.NFT_MSG_GETRULE, d.table), func() { clear(out) }, func(m nl.Message) {
		var table, chain, data []byte
		attrs(m, func(kind uint16, value []byte) {
			switch kind {
			case unix.NFTA_RULE_TABLE:
				table = bytes.TrimRight(value, "\x00")
			case unix.NFTA_RULE_CHAIN:
				chain = bytes.TrimRight(value, "\x00")
			case unix.NFTA_RULE_USERDATA:
				data = value
			}
		})
		if string(table) == d.table {
			out[string(chain)] = append(out[string(chain)], string(userdata.Get(data, typeMark)))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	return out, nil
}

// keyed are Elements that are keys and nothing else.
type keyed interface {
	Len() int
	Has(key []byte) bool
}

// has reports whether the kernel's set has the elements of s and no other. It is false as well where they are not keyed:
// they have to be read, and compared one by one.
func (d dumper) has(s *Set) (same bool, err error) {
	keys, ok := s.Elements.(keyed)
	if !ok || s.Interval || s.IsMap {
		return false, nil
	}
	n := 0
	element := func(_ uint16, element []byte) {
		found := false
		nl.Attrs(element, func(kind uint16, key []byte) {
			if kind == unix.NFTA_SET_ELEM_KEY {
				nl.Attrs(key, func(_ uint16, value []byte) { found = keys.Has(value) })
			}
		})
		n, same = n+1, same && found
	}
	err = d.Dump(d.request(unix.NFT_MSG_GETSETELEM, d.table, s.Name), func() { n, same = 0, true }, func(m nl.Message) {
		attrs(m, func(kind uint16, list []byte) {
			if kind == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				nl.Attrs(list, element)
			}
		})
	})
	if err != nil {
		return false, fmt.Errorf("list elements of set %s: %w", s.Name, err)
	}
	return same && n == keys.Len(), nil
}
