package ipam

import (
	"crypto/sha256"
	"crypto/sha3"
	"encoding/base32"
	"encoding/hex"
	"net/netip"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// Labels that Calico requires on every BlockAffinity: its clients list a
// node's affinities by them, and never see an object without them.
const (
	LabelHostnameHash = "projectcalico.org/hostname-hash"
	LabelAffinityType = "projectcalico.org/affinity-type"
	LabelIPVersion    = "projectcalico.org/ip-version"
)

// MaxObjectName is the length, in bytes, from which Calico shortens the name
// of a BlockAffinity.
const MaxObjectName = 253

// BlockName is the object name of the block with that prefix: the prefix with
// every ".", ":" and "/" written as "-", as in 10-244-1-0-26.
func BlockName(cidr netip.Prefix) string {
	return string(AppendBlockName(nil, cidr))
}

// AppendBlockName appends what BlockName gives.
func AppendBlockName(b []byte, cidr netip.Prefix) []byte {
	start := len(b)
	b = cidr.AppendTo(b)
	for i, c := range b[start:] {
		if c == '.' || c == ':' || c == '/' {
			b[start+i] = '-'
		}
	}
	return b
}

// AffinityName is the object name of a node's affinity to a block. In names of
// 253 bytes and more the node is cut short, and 11 hex digits of a SHA-256
// follow.
func AffinityName(node model.NodeName, cidr netip.Prefix) string {
	block := BlockName(cidr)
	name := string(node) + "-" + block
	if len(name) < MaxObjectName {
		return name
	}
	sum := sha256.Sum256([]byte(string(node) + "+" + block))
	suffix := "-" + block + "-" + hex.EncodeToString(sum[:])[:11]
	return string(node)[:MaxObjectName-1-len(suffix)] + suffix
}

// HandleName is the object name of a handle: its id in lower case.
func HandleName(id string) string { return strings.ToLower(id) }

// HostnameHash is the value of LabelHostnameHash: the unpadded base32 of the
// SHA3-256 of the node's name, 52 characters.
func HostnameHash(node model.NodeName) string {
	sum := sha3.Sum256([]byte(node))
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:])
}

// AffinityLabels are the labels of a node's affinity to a block.
func AffinityLabels(a Affinity) map[string]string {
	version := "4"
	if a.CIDR.Addr().Is6() {
		version = "6"
	}
	return map[string]string{
		LabelHostnameHash: HostnameHash(a.Node),
		LabelAffinityType: a.Type,
		LabelIPVersion:    version,
	}
}

// LoadBalancer is the name of what the blocks of Services' addresses are affine to
// (Calico's VirtualLoadBalancer).
const LoadBalancer model.NodeName = "load-balancer"

// VirtualAffinity is the text of a block's affinity to something that is no node.
func VirtualAffinity(name model.NodeName) string { return TypeVirtual + ":" + string(name) }

// HostAffinity is the text of a block's affinity to a node, as it stands in
// IPAMBlock.spec.affinity.
func HostAffinity(node model.NodeName) string { return TypeHost + ":" + string(node) }
