package ipamview

import (
	"fmt"
	"math"
	"net/netip"
)

// Usage is calicoctl's table of `ipam show`: a row for each pool and, when asked
// for, one for each of its blocks.
func (s *Survey) Usage(blocks bool) [][]string {
	rows := [][]string{{"GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS RESERVED", "IPS FREE"}}
	shown := map[netip.Prefix]bool{}
	for _, p := range s.Pools {
		total := math.Exp2(float64(p.CIDR.Addr().BitLen() - p.CIDR.Bits()))
		used, held, below := 0, 0, [][]string(nil)
		for _, b := range s.Blocks {
			if !p.CIDR.Overlaps(b.CIDR) || shown[b.CIDR] {
				continue
			}
			shown[b.CIDR] = true
			used, held = used+b.InUse, held+b.Reserved
			below = append(below, row("Block", b.CIDR, float64(b.Size), b.InUse, b.Reserved))
		}
		rows = append(rows, row("IP Pool", p.CIDR, total, used, held))
		if blocks {
			rows = append(rows, below...)
		}
	}
	for _, b := range s.Blocks {
		if !shown[b.CIDR] {
			rows = append(rows, row("Block without pool", b.CIDR, float64(b.Size), b.InUse, b.Reserved))
		}
	}
	return rows
}

func row(what string, cidr netip.Prefix, total float64, used, reserved int) []string {
	cell := func(n float64) string { return fmt.Sprintf("%.5g (%.f%%)", n, 100*n/total) }
	return []string{what, cidr.String(), fmt.Sprintf("%.5g", total), cell(float64(used)), cell(float64(reserved)), cell(total - float64(used) - float64(reserved))}
}

// Borrowed lists the addresses that are used outside the block's node.
func (s *Survey) Borrowed() [][]string {
	rows := [][]string{{"IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO"}}
	for _, t := range s.Taken {
		if t.Node == "" || t.Node == string(t.BlockNode) {
			continue
		}
		rows = append(rows, []string{t.Addr.String(), t.Node, t.Block.String(), string(t.BlockNode), t.kind(), t.owner()})
	}
	return rows
}

func (t Taken) kind() string {
	if t.Type != "" {
		return t.Type
	}
	if t.Pod != "" {
		return "pod"
	}
	if t.Service != "" {
		return "service"
	}
	return "unknown"
}

func (t Taken) owner() string {
	if t.Pod != "" {
		return t.Namespace + "/" + t.Pod
	}
	if t.Service != "" {
		return t.Namespace + "/" + t.Service
	}
	if t.Handle != "" {
		return t.Handle
	}
	return "unknown"
}
