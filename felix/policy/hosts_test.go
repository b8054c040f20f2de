package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
)

// atHost decides about a packet at a host endpoint straight from the objects.
func (j evaluate) atHost(e *model.HostEndpoint, at hook, in bool, p Packet) Verdict {
	labels := map[string]string{}
	for k, v := range e.Labels {
		if !lent.MatchString(k) {
			labels[k] = v
		}
	}
	such := func(p model.Policy) bool {
		switch at {
		case untracked:
			return p.Untracked
		case preDNAT:
			return p.PreDNAT
		case forward:
			return p.Forward && !p.Untracked && !p.PreDNAT
		}
		return !p.Untracked && !p.PreDNAT
	}
	early := at == untracked || at == preDNAT
	if at != forward && j.neverCut(p, in, at == untracked) {
		if early {
			return Continue
		}
		return Allow
	}
	some := false
	for _, t := range j.tiers() {
		verdict, counted := j.tier(t, labels, in, p, such)
		some = some || counted
		switch {
		case verdict == model.PolicyAllow:
			return Allow
		case verdict == model.PolicyDeny, counted && verdict == "" && !t.Pass && !early:
			return Deny
		}
	}
	switch {
	case early:
		return Continue
	case at == forward || slices.Contains(e.Profiles, "projectcalico-default-allow"):
		return Allow
	}
	return Deny
}

// neverCut reports whether a packet is of a failsafe port, of what Muslin needs, or of
// neighbor discovery; answers counts those as well that are sent back.
func (j evaluate) neverCut(p Packet, in, answers bool) bool {
	if p.Protocol == 4 || p.Protocol == 58 && (p.ICMPType >= 130 && p.ICMPType <= 136 || p.ICMPType == 143) {
		return true
	}
	own := []model.FailsafePort{{Protocol: 6, Port: 179}, {Protocol: 17, Port: 3784}, {Protocol: 17, Port: 3785}, {Protocol: 17, Port: 4784}, {Protocol: 17, Port: 4789}}
	is := func(list []model.FailsafePort, port uint16) bool {
		other := p.Source
		if !in {
			other = p.Destination
		}
		return slices.ContainsFunc(slices.Concat(list, own), func(f model.FailsafePort) bool {
			return f.Protocol == p.Protocol && f.Port == port && (!f.Net.IsValid() || f.Net.Contains(other))
		})
	}
	mine, others := j.in.FailsafeIn, j.in.FailsafeOut
	if !in {
		mine, others = others, mine
	}
	return is(mine, p.DestinationPort) || answers && is(others, p.SourcePort)
}

func randomHosts(r *rand.Rand, in *Input) {
	for i := range r.IntN(4) {
		in.View.HostEndpoints = append(in.View.HostEndpoints, model.HostEndpoint{
			Object: model.Ref{Kind: model.KindHostEndpoint, Name: fmt.Sprint("h", i)}, Node: one[model.NodeName](r, "here", "here", "there"),
			Interface: one(r, "eth0", "eth1", "*", ""), Labels: randomLabels(r), Addresses: some(r, 2, randomAddr),
			Profiles: some(r, 1, func(*rand.Rand) string { return "projectcalico-default-allow" }),
		})
	}
	for _, name := range []string{"eth0", "eth1"} {
		in.Interfaces = append(in.Interfaces, Interface{name, some(r, 3, randomAddr)})
	}
	port := func(r *rand.Rand) model.FailsafePort {
		f := model.FailsafePort{Protocol: one[uint8](r, tcp, udp), Port: one[uint16](r, 80, 81, 65535)}
		if chance(r, 50) {
			f.Net, _ = randomAddr(r).Prefix(30)
		}
		return f
	}
	in.FailsafeIn, in.FailsafeOut = some(r, 2, port), some(r, 2, port)
}

// TestHostsAgreeWithEvaluate compares what the chains of host endpoints do to packets, at
// every hook, with what the objects say, in random worlds.
func TestHostsAgreeWithEvaluate(t *testing.T) {
	start := *seed
	if start == 0 {
		start = rand.Uint64()
	}
	const packetsPerWorld = 50
	verdicts := map[Verdict]int{}
	for n := range uint64(*decisions / packetsPerWorld) {
		r := rand.New(rand.NewPCG(start, n))
		in := randomWorld(r)
		program, _ := Compile(in)
		checkShape(t, program)
		ends, _ := newWorld(in, Program{}).hostEndpoints(in)
		if len(ends) != len(program.Hosts) {
			t.Fatalf("-seed %d world %d: %d hosts, want %d", start, n, len(program.Hosts), len(ends))
		}
		for name, e := range ends {
			h := program.Hosts[name]
			for range packetsPerWorld {
				i := r.IntN(7)
				at, ingress := []hook{normal, normal, forward, forward, preDNAT, untracked, untracked}[i], []bool{true, false, true, false, true, true, false}[i]
				pkt := randomPacket(r, randomAddr(r), ingress)
				want := evaluate{in}.atHost(e, at, ingress, pkt)
				path := program.Decide(h.chains()[i], pkt)
				got := Allow
				if len(path) > 0 {
					got = path[len(path)-1].Verdict
				} else if at == preDNAT || at == untracked {
					got = Continue
				}
				if got != want {
					t.Fatalf("-seed %d world %d: %+v at %s, chain %d: %s, want %s\n%s\n%+v", start, n, pkt, name, i, got, want, program, in.View)
				}
				verdicts[want]++
			}
		}
	}
	if least := *decisions / 50; verdicts[Allow] < least || verdicts[Deny] < least || verdicts[Continue] < least {
		t.Errorf("-seed %d: the worlds are dull: %v", start, verdicts)
	}
}
