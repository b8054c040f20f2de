package bgp

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
)

// String is the text form of a configuration: what the goldens of this package
// hold and what `muslinctl node show` prints. Passwords are not shown.
func (c Config) String() string {
	var w strings.Builder
	fmt.Fprintf(&w, "as %s router-id %s listen %s port %d max-paths %d\n", c.ASN, c.RouterID, listen(c.Listen), c.ListenPort, c.MaxPaths)
	for _, p := range c.NoInstall {
		fmt.Fprintf(&w, "no-install %s\n", p)
	}
	for _, p := range c.Paths {
		fmt.Fprintf(&w, "path %s via %s %s", p.Prefix, p.NextHop, p.Kind)
		when(&w, p.LocalPref != LocalPref, " local-pref %d", p.LocalPref)
		when(&w, p.LastResort, " graceful-shutdown")
		fmt.Fprintln(&w)
	}
	for _, p := range c.Peers {
		fmt.Fprintln(&w, p)
	}
	for _, p := range c.Policies {
		fmt.Fprint(&w, p)
	}
	return w.String()
}

func listen(as []netip.Addr) string {
	if len(as) == 0 {
		return "*"
	}
	return join(as)
}

// String gives one line. Settings that are at their defaults are left out.
func (p Peer) String() string {
	var w strings.Builder
	fmt.Fprintf(&w, "peer %s", p.Address)
	if p.Port != DefaultListenPort {
		fmt.Fprintf(&w, " port %d", p.Port)
	}
	fmt.Fprintf(&w, " as %s %s (%s) from", p.ASN, p.Kind, p.Object)
	if p.LocalAddress.IsValid() {
		fmt.Fprintf(&w, " %s", p.LocalAddress)
	} else {
		fmt.Fprint(&w, " *")
	}
	fmt.Fprintf(&w, " as %s %s", p.LocalASN, strings.ToLower(join(p.Families)))
	when(&w, p.IsPod(), " pod %s/%s", p.Pod.Namespace, p.Pod.Name)
	when(&w, p.Passive, " passive")
	when(&w, !p.Password.IsZero(), " password")
	when(&w, p.HoldTime != DefaultHoldTime, " hold %s", p.HoldTime)
	when(&w, p.Keepalive != p.HoldTime/3, " keepalive %s", p.Keepalive)
	when(&w, p.ConnectRetry > 0, " connect-retry %s", p.ConnectRetry)
	when(&w, p.NoRestart, " no-restart")
	when(&w, p.Multihop > 0, " multihop %d", p.Multihop)
	when(&w, p.RestartTime != DefaultRestartTime, " restart %s", p.RestartTime)
	when(&w, p.AllowedLocalASNs > 0, " allow-as-in %d", p.AllowedLocalASNs)
	when(&w, p.TTLSecurity > 0, " ttl-security %d", p.TTLSecurity)
	when(&w, p.ReflectorClient, " client-of %s", p.ClusterID)
	when(&w, p.ReachableBy.IsValid(), " reachable-by %s", p.ReachableBy)
	when(&w, p.Link.Name != p.Address.Zone(), " link %s", p.Link.Name)
	when(&w, p.PrefixLimit != p.usualPrefixLimit(), " prefix-limit %d", p.PrefixLimit)
	if p.BFD != nil {
		fmt.Fprintf(&w, " bfd %s x %d", p.BFD.Interval, p.BFD.Multiplier)
	}
	fmt.Fprintf(&w, " import %s export %s", p.Import, p.Export)
	return w.String()
}

// String gives a line for the policy and one for each rule.
func (p Policy) String() string {
	var w strings.Builder
	fmt.Fprintf(&w, "policy %s %s\n", p.Direction, p.Name)
	for _, r := range p.Rules {
		fmt.Fprintf(&w, "  %s\n", r)
	}
	return w.String()
}

// String gives one line: what matches, what is set, what is decided, and where
// the rule comes from.
func (r Rule) String() string {
	var w strings.Builder
	m := r.Match
	when(&w, m.Family != 0, "%s ", m.Family.Lower())
	if len(m.Prefixes) > 0 {
		when(&w, m.NotPrefixes, "not ")
		fmt.Fprintf(&w, "%s ", join(m.Prefixes))
	}
	when(&w, m.Source != "", "from %s ", m.Source)
	when(&w, len(m.NextHops) > 0, "next-hop %s ", join(m.NextHops))
	when(&w, len(m.NextHopIn) > 0, "next-hop-in %s ", join(m.NextHopIn))
	when(&w, m.Community != "", "community %s ", m.Community)
	when(&w, len(m.ASPathPrefix) > 0, "as-path %s... ", join(m.ASPathPrefix))
	if m.LocalPref != nil {
		fmt.Fprintf(&w, "local-pref %d ", *m.LocalPref)
	}
	if w.Len() == 0 {
		fmt.Fprint(&w, "any ")
	}
	fmt.Fprint(&w, "=> ")
	s := r.Set
	when(&w, len(s.Communities) > 0, "add %s ", join(s.Communities))
	when(&w, len(s.PrependASPath) > 0, "prepend %s ", join(s.PrependASPath))
	if s.LocalPref != nil {
		fmt.Fprintf(&w, "local-pref %d ", *s.LocalPref)
	}
	when(&w, s.NextHop != "", "next-hop %s ", strings.ToLower(string(s.NextHop)))
	when(&w, s.NextHopAddr.IsValid(), "(%s) ", s.NextHopAddr)
	fmt.Fprintf(&w, "%s  # %s", r.Action, r.From)
	return w.String()
}

// String gives "10.0.0.0/8", or "10.0.0.0/8{24,32}" when the lengths are
// limited otherwise than to the prefix itself and all in it ("10.0.0.0/8+").
func (r PrefixRange) String() string {
	switch {
	case r.Min == r.Prefix.Bits() && r.Max == r.Min:
		return r.Prefix.String()
	case r == Inside(r.Prefix):
		return r.Prefix.String() + "+"
	}
	return fmt.Sprintf("%s{%d,%d}", r.Prefix, r.Min, r.Max)
}

func when(w io.Writer, cond bool, format string, args ...any) {
	if cond {
		fmt.Fprintf(w, format, args...)
	}
}

func join[T any](xs []T) string {
	words := make([]string, len(xs))
	for i, x := range xs {
		words[i] = fmt.Sprint(x)
	}
	return strings.Join(words, ",")
}
