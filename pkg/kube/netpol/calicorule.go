package netpol

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"github.com/projectcalico/api/pkg/lib/numorstring"
)

// ruleReader reads one rule; bad is set by anything that cannot be read.
type ruleReader struct {
	*calicoReader
	field  string
	egress bool
	bad    bool
}

func (r *ruleReader) fail(field, format string, args ...any) {
	r.bad = true
	r.warn(r.field+field, format, args...)
}

func (r *calicoReader) rule(field string, raw json.RawMessage, egress bool) model.PolicyRule {
	rr := &ruleReader{calicoReader: r, field: field, egress: egress}
	var v calico.Rule
	if err := json.Unmarshal(raw, &v); err != nil {
		rr.fail("", "cannot be read: %v", err)
		var peek struct {
			Action calico.Action `json:"action"`
		}
		_ = json.Unmarshal(raw, &peek) // no action is a Deny, below
		v = calico.Rule{Action: peek.Action}
	}
	out := model.PolicyRule{Action: rr.action(v.Action)}
	out.IPVersion = rr.ipVersion(v.IPVersion)
	out.Protocol = rr.protocol(".protocol", v.Protocol)
	out.NotProtocol = rr.protocol(".notProtocol", v.NotProtocol)
	rr.versionOfICMP(&out, &v)
	out.ICMP = rr.icmp(".icmp", v.ICMP, out.Protocol)
	out.NotICMP = rr.icmp(".notICMP", v.NotICMP, out.Protocol)
	out.Source = rr.peer(".source", &v.Source, out.Protocol)
	out.Destination = rr.peer(".destination", &v.Destination, out.Protocol)
	if v.HTTP != nil {
		rr.report("PartlyEnforced", field+".http", "is not looked at: the rule allows every request that its other criteria match")
	}
	out.Unreadable = rr.bad
	return out
}

func (r *ruleReader) action(a calico.Action) model.PolicyAction {
	switch a {
	case calico.Allow, calico.Deny, calico.Pass, calico.Log:
		return model.PolicyAction(a)
	}
	r.fail(".action", "%q is not one of Allow, Deny, Pass, Log; the rule denies everything", a)
	return model.PolicyDeny
}

func (r *ruleReader) ipVersion(v *int) uint8 {
	switch {
	case v == nil:
		return 0
	case *v == 4 || *v == 6:
		return uint8(*v)
	}
	r.fail(".ipVersion", "%d is not 4 or 6", *v)
	return 0
}

// protocolNumbers are those of the names that Calico knows.
var protocolNumbers = map[string]uint8{
	numorstring.ProtocolTCP: 6, numorstring.ProtocolUDP: 17, numorstring.ProtocolICMP: icmp, numorstring.ProtocolICMPv6: icmpv6,
	numorstring.ProtocolSCTP: 132, numorstring.ProtocolUDPLite: 136,
}

const (
	icmp   = 1
	icmpv6 = 58
)

func (r *ruleReader) protocol(field string, p *numorstring.Protocol) uint8 {
	if p == nil {
		return 0
	}
	n, ok := protocolNumber(p)
	if !ok {
		r.fail(field, noProtocol, p.String())
	}
	return n
}

// noProtocol says what is wrong with one.
const noProtocol = "%q is no protocol: want TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or 1 to 255"

// protocolNumber reads a protocol; Calico takes the names in any case.
func protocolNumber(p *numorstring.Protocol) (n uint8, ok bool) {
	if p.Type == numorstring.NumOrStringNum {
		return p.NumVal, p.NumVal > 0
	}
	n, ok = protocolNumbers[numorstring.ProtocolFromString(p.StrVal).StrVal]
	return n, ok
}

// versionOfICMP: the names ICMP and ICMPv6 are of one IP version each; the
// numbers are so where a type is asked for.
func (r *ruleReader) versionOfICMP(out *model.PolicyRule, v *calico.Rule) {
	version := map[uint8]uint8{icmp: 4, icmpv6: 6}[out.Protocol]
	if version == 0 || v.Protocol.Type == numorstring.NumOrStringNum && v.ICMP == nil && v.NotICMP == nil {
		return
	}
	if out.IPVersion != 0 && out.IPVersion != version {
		r.fail(".ipVersion", "%d does not go with protocol %s", out.IPVersion, v.Protocol)
	}
	out.IPVersion = version
}

func (r *ruleReader) icmp(field string, m *calico.ICMPFields, protocol uint8) *model.ICMPMatch {
	switch {
	case m == nil || m.Type == nil && m.Code == nil:
		return nil
	case protocol != icmp && protocol != icmpv6:
		r.fail(field, "needs protocol ICMP or ICMPv6")
	case m.Type == nil:
		r.fail(field+".code", "needs type")
	case *m.Type < 0 || *m.Type > 254:
		r.fail(field+".type", "%d is not within 0 and 254", *m.Type)
	case m.Code != nil && (*m.Code < 0 || *m.Code > 255):
		r.fail(field+".code", "%d is not within 0 and 255", *m.Code)
	default:
		out := &model.ICMPMatch{Type: uint8(*m.Type)}
		if m.Code != nil {
			code := uint8(*m.Code)
			out.Code = &code
		}
		return out
	}
	return nil
}

func (r *ruleReader) peer(field string, e *calico.EntityRule, protocol uint8) model.PolicyPeer {
	out := model.PolicyPeer{
		Nets: r.nets(field+".nets", e.Nets), NotNets: r.nets(field+".notNets", e.NotNets),
		Ports: r.ports(field+".ports", e.Ports, protocol), NotPorts: r.ports(field+".notPorts", e.NotPorts, protocol),
	}
	if e.Services != nil {
		out.Service = r.service(field, e)
	}
	if s := r.positive(field, e); s != nil {
		out.Selector = s
	}
	if e.NotSelector != "" {
		if s, ok := r.selector(r.field+field+".notSelector", e.NotSelector); ok {
			out.NotSelector = s
		} else {
			r.bad = true
		}
	}
	return out
}

// service gives the service that a side names. One that receives from a service
// asks for its source, one that sends to it for its destination.
func (r *ruleReader) service(field string, e *calico.EntityRule) string {
	s := e.Services
	ref := model.Ref{Namespace: s.Namespace, Name: s.Name}
	if ref.Namespace == "" {
		ref.Namespace = r.namespace
	}
	destination := field == ".destination"
	switch {
	case destination != r.egress:
		r.fail(field+".services", "is possible for the source of ingress rules and the destination of egress rules")
	case s.Name == "" || ref.Namespace == "":
		r.fail(field+".services", "needs name, and in a GlobalNetworkPolicy namespace")
	case e.Selector != "" || e.NotSelector != "" || e.NamespaceSelector != "" || e.ServiceAccounts != nil || len(e.Nets)+len(e.NotNets) > 0:
		r.fail(field+".services", "cannot stand with selectors, nets or service accounts")
	case destination && len(e.Ports)+len(e.NotPorts) > 0:
		r.fail(field+".services", "cannot stand with ports: those of the service are meant")
	}
	return ref.Namespace + "/" + ref.Name
}

// positive gives the selector that a side has from all of its fields but
// notSelector; nil if none of them says anything. In a policy of a namespace a
// selector selects within that, unless the side names namespaces.
func (r *ruleReader) positive(field string, e *calico.EntityRule) *selector.Selector {
	var all []*selector.Selector
	add := func(s *selector.Selector, ok bool) {
		r.bad = r.bad || !ok
		all = append(all, s)
	}
	switch {
	case e.NamespaceSelector != "":
		add(r.namespaces(r.field+field+".namespaceSelector", e.NamespaceSelector))
	case r.namespace != "" && (e.Selector != "" || e.NotSelector != "" || e.ServiceAccounts != nil):
		add(ofNamespace(r.namespace), true)
	}
	if e.Selector != "" {
		add(r.selector(r.field+field+".selector", e.Selector))
	}
	if a := e.ServiceAccounts; a != nil {
		if len(a.Names) > 0 {
			add(selector.In(model.LabelServiceAccount, a.Names...), true)
		}
		if a.Selector != "" {
			s, ok := r.selector(r.field+field+".serviceAccounts.selector", a.Selector)
			add(s.Within(model.LabelPrefixOfAccount, hasAccount), ok)
		}
	}
	if len(all) == 0 || r.bad {
		return nil // a bad rule's selector is not looked at
	}
	return selector.And(all...)
}

func (r *ruleReader) nets(field string, list []string) []netip.Prefix {
	var out []netip.Prefix
	for i, text := range list {
		p, ok := r.net(fmt.Sprintf("%s%s[%d]", r.field, field, i), text)
		r.bad = r.bad || !ok
		out = append(out, p)
	}
	return out
}

func (r *ruleReader) ports(field string, list []numorstring.Port, protocol uint8) []model.PolicyPort {
	var out []model.PolicyPort
	for i, p := range list {
		if p.PortName == "" && protocol != 6 && protocol != 17 && protocol != 132 {
			r.fail(fmt.Sprintf("%s[%d]", field, i), "a number needs protocol TCP, UDP or SCTP")
		}
		out = append(out, model.PolicyPort{First: p.MinPort, Last: p.MaxPort, Name: p.PortName})
	}
	return out
}
