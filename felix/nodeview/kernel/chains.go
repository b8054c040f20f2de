package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/nodeview"
)

var families = map[byte]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6"}

var hooks = []string{"prerouting", "input", "forward", "output", "postrouting"}

// chains lists the base chains of every table that sees IP packets, those of
// iptables-nft included. Rules are not read: a policy says enough to know where
// to look.
func chains() ([]nodeview.Chain, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open nfnetlink: %w", err)
	}
	defer func() { _ = c.Close() }()
	answer, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETCHAIN), Flags: netlink.Request | netlink.Dump},
		Data:   []byte{unix.NFPROTO_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	var out []nodeview.Chain
	var errs []error
	for _, m := range answer {
		ch, base, err := chain(m.Data)
		errs = append(errs, err)
		if base {
			out = append(out, ch)
		}
	}
	return out, errors.Join(errs...)
}

func chain(data []byte) (ch nodeview.Chain, base bool, err error) {
	if len(data) < 4 || families[data[0]] == "" {
		return ch, false, nil
	}
	ch.Family = families[data[0]]
	ad, err := netlink.NewAttributeDecoder(data[4:])
	if err != nil {
		return ch, false, err
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_CHAIN_TABLE:
			ch.Table = ad.String()
		case unix.NFTA_CHAIN_NAME:
			ch.Name = ad.String()
		case unix.NFTA_CHAIN_POLICY:
			ch.Drops = ad.Uint32() == 0 // NF_DROP
		case unix.NFTA_CHAIN_HOOK:
			base = true
			ad.Nested(func(n *netlink.AttributeDecoder) error {
				n.ByteOrder = binary.BigEndian
				for n.Next() {
					switch n.Type() {
					case unix.NFTA_HOOK_HOOKNUM:
						if i := int(n.Uint32()); i < len(hooks) {
							ch.Hook = hooks[i]
						}
					case unix.NFTA_HOOK_PRIORITY:
						ch.Priority = int(int32(n.Uint32()))
					}
				}
				return nil
			})
		}
	}
	return ch, base, ad.Err()
}
