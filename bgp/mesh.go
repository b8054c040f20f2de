package bgp

import "github.com/muslin-net/muslin/pkg/model"

// mesh makes the sessions of the node-to-node mesh: one with each other node
// and for each family both have. Route reflectors are not part of the mesh.
// IPv4 and IPv6 have sessions of their own, as in Calico, so that nodes of
// both kinds mesh, and no session carries a family its other end lacks.
func (b *builder) mesh() []Peer {
	if m := b.defaults.MeshEnabled; m != nil && !*m || isReflector(b.node) {
		return nil
	}
	pw := b.defaults.MeshPassword
	ref := model.Ref{Kind: "BGPConfiguration", Name: "default"}
	if pw != nil && !pw.Known {
		b.problem(ref, "spec.nodeMeshPassword", "SecretMissing",
			"secret %s has no readable key %s; the mesh is withheld until it has", pw.SecretName, pw.Key)
		return nil
	}
	var out []Peer
	for _, n := range b.snap.Nodes {
		if n.Name == b.node.Name || isReflector(n) {
			continue
		}
		for _, f := range model.Families {
			if !n.Address(f).IsValid() || !b.node.Address(f).IsValid() {
				continue
			}
			p := Peer{
				Address: n.Address(f), ASN: b.asnOf(n), Kind: model.PeerMesh,
				Object: model.Ref{Kind: "Node", Name: string(n.Name)}, Families: []model.Family{f},
			}
			b.asNode(&p, n)
			p.ReflectorClient = false
			b.base(&p)
			b.timers(ref, b.defaults.Annotations, &p)
			if d := b.defaults.MeshMaxRestartTime; d > 0 {
				p.RestartTime = b.restartTime(ref, "spec.nodeMeshMaxRestartTime", d)
			}
			if pw != nil {
				p.Password = pw.Value
			}
			out = append(out, p)
		}
	}
	return out
}
