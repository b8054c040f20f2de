package loadbalancer_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/ipamtest"
	"github.com/muslin-net/muslin/ipam/loadbalancer"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// service makes a Service of type LoadBalancer; change says what is special of it.
func service(name string, change ...func(*model.BalancedService)) model.BalancedService {
	namespace, name, ok := strings.Cut(name, "/")
	if !ok {
		namespace, name = "ns", namespace
	}
	s := model.BalancedService{
		Namespace: namespace, Name: name, UID: "uid-" + name, Created: began.Add(time.Duration(name[0]) * time.Second), LoadBalancer: true, IPv4: true,
		Ports: []model.ServicePort{{Protocol: "TCP", Port: 80}}, Selector: "app=" + name, Annotations: map[string]string{},
	}
	for _, c := range change {
		c(&s)
	}
	return s
}

func note(key, value string) func(*model.BalancedService) {
	return func(s *model.BalancedService) { s.Annotations[key] = value }
}

func pools4(names string) func(*model.BalancedService) {
	return note(loadbalancer.AnnotationIPv4Pools, names)
}

func addrs(list string) func(*model.BalancedService) {
	return note(loadbalancer.AnnotationAddrs, list)
}

// key shares by a key, on a port.
func key(k string, port uint16) func(*model.BalancedService) {
	return func(s *model.BalancedService) {
		s.Annotations[loadbalancer.AnnotationShare], s.Ports[0].Port = k, port
	}
}

func status(list ...string) func(*model.BalancedService) {
	return func(s *model.BalancedService) {
		for _, a := range list {
			s.Addrs = append(s.Addrs, netip.MustParseAddr(a))
		}
	}
}

func dual(s *model.BalancedService)     { s.IPv6 = true }
func prefer(s *model.BalancedService)   { s.IPv6, s.Optional = true, true }
func six(s *model.BalancedService)      { s.IPv4, s.IPv6 = false, true }
func local(s *model.BalancedService)    { s.LocalTraffic = true }
func samePods(s *model.BalancedService) { s.Selector = "app=same" }
func cluster(s *model.BalancedService)  { s.LoadBalancer = false }
func class(c string) func(*model.BalancedService) {
	return func(s *model.BalancedService) { s.Class = c }
}
func field(a string) func(*model.BalancedService) {
	return func(s *model.BalancedService) { s.Wanted = a }
}

func pool(name, cidr string, bits int, change ...func(*model.Pool)) model.Pool {
	p := model.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr), BlockSize: bits, AllowedUses: []model.Use{"LoadBalancer"}, Allocatable: true}
	for _, c := range change {
		c(&p)
	}
	return p
}

func manual(p *model.Pool)   { p.Manual = true }
func deleting(p *model.Pool) { p.Deleting = true }
func disabled(p *model.Pool) { p.Disabled = true }
func pods(p *model.Pool)     { p.AllowedUses = []model.Use{"Workload"} }
func of(s string) func(*model.Pool) {
	return func(p *model.Pool) {
		sel, err := selector.Parse(s)
		if err != nil {
			panic(err)
		}
		p.NamespaceSelector = sel
	}
}

var (
	lb  = pool("lb", "10.9.0.0/29", 30)
	lb6 = pool("lb6", "fd09::/124", 126)
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// run carries plans out on a store until one has nothing to do, as the controller
// does, with a new decision from what is stored before every step: grants, statuses,
// releases.
func run(t *testing.T, store ipam.Store, in *loadbalancer.Input) []model.Problem {
	t.Helper()
	ctx := t.Context()
	for range 20 {
		in.Now = began.Add(time.Hour)
		var err error
		if in.Blocks, err = store.BlocksOf(ctx, ipam.VirtualAffinity(ipam.LoadBalancer)); err != nil {
			t.Fatal(err)
		}
		p := loadbalancer.Decide(*in)
		if step(ctx, t, store, in, p); len(p.Claims)+len(p.Writes)+len(p.Statuses)+len(p.Releases)+len(p.Drops) == 0 {
			return p.Problems
		}
		unique(t, in.Services)
	}
	t.Fatal("there is always something to do")
	return nil
}

// step carries out the first part of a plan that is not empty: a controller that
// ends after each.
func step(ctx context.Context, t *testing.T, store ipam.Store, in *loadbalancer.Input, p loadbalancer.Plan) {
	t.Helper()
	fail := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, cidr := range p.Claims {
		err := alloc.ClaimVirtual(ctx, store, ipam.LoadBalancer, cidr)
		if errors.Is(err, alloc.ErrForeign) {
			in.Foreign = append(in.Foreign, cidr)
			return
		}
		fail(err)
	}
	for _, w := range p.Writes {
		fail(alloc.AssignVirtual(ctx, store, w.CIDR, w.Grants))
	}
	if len(p.Writes) > 0 {
		return
	}
	for _, s := range p.Statuses {
		i := slices.IndexFunc(in.Services, func(o model.BalancedService) bool { return o.Ref() == s.Service.Ref() })
		now := s.Addrs
		if now == nil {
			now = slices.DeleteFunc(slices.Clone(in.Services[i].Addrs), func(a netip.Addr) bool { return slices.Contains(s.Drop, a) })
		}
		in.Services[i].Addrs, in.Services[i].Others = now, false
	}
	if len(p.Statuses) > 0 {
		return
	}
	for _, r := range p.Releases {
		fail(alloc.ReleaseAddrs(ctx, store, r.CIDR, []ipam.Release{r.Release}, in.Cooldown))
	}
	for _, cidr := range p.Drops {
		fail(alloc.DropVirtual(ctx, store, ipam.LoadBalancer, cidr, in.Cooldown))
	}
}

// unique: no address stands in two statuses, but of Services that share it.
func unique(t *testing.T, list []model.BalancedService) {
	t.Helper()
	for i := range list {
		for j := range list[:i] {
			a, b := &list[i], &list[j]
			shared := a.Annotations[loadbalancer.AnnotationShare]
			if shared != "" && shared == b.Annotations[loadbalancer.AnnotationShare] {
				continue
			}
			for _, x := range a.Addrs {
				if slices.Contains(b.Addrs, x) {
					t.Errorf("%s and %s both have %s", a.Ref(), b.Ref(), x)
				}
			}
		}
	}
}

// show is what Services have, a line each, and the problems.
func show(in *loadbalancer.Input, problems []model.Problem) string {
	var out []string
	for i := range in.Services {
		s := &in.Services[i]
		line := s.Name
		for _, a := range s.Addrs {
			line += " " + a.String()
		}
		out = append(out, line)
	}
	for _, p := range problems {
		out = append(out, fmt.Sprintf("! %s %s %s", p.Object.Name, p.Field, p.Reason))
	}
	return strings.Join(out, "; ")
}

// A step of a story changes the input; want is what everybody has afterwards.
type act struct {
	do   func(in *loadbalancer.Input)
	want string
}

func put(list ...model.BalancedService) func(*loadbalancer.Input) {
	return func(in *loadbalancer.Input) {
		for _, s := range list {
			i := slices.IndexFunc(in.Services, func(o model.BalancedService) bool { return o.Ref() == s.Ref() })
			if i < 0 {
				in.Services = append(in.Services, s)
				continue
			}
			s.Addrs = append(s.Addrs, in.Services[i].Addrs...)
			in.Services[i] = s
		}
	}
}

func drop(names ...string) func(*loadbalancer.Input) {
	return func(in *loadbalancer.Input) {
		in.Services = slices.DeleteFunc(in.Services, func(s model.BalancedService) bool { return slices.Contains(names, s.Name) })
	}
}

func set(p ...model.Pool) func(*loadbalancer.Input) {
	return func(in *loadbalancer.Input) { in.Pools = p }
}

const poolsField = "metadata.annotations[projectcalico.org/ipv4pools]"
const shareField = "metadata.annotations[muslin.io/shared-ip-key]"
const addrsField = "metadata.annotations[projectcalico.org/loadBalancerIPs]"

var stories = []struct {
	name  string
	start func(in *loadbalancer.Input)
	acts  []act
}{
	{"one after the other", nil, []act{{put(service("a"), service("b")), "a 10.9.0.0; b 10.9.0.1"}}},
	{"no pool is for Services: nobody meant them", set(pool("p", "10.1.0.0/24", 26, pods)), []act{{put(service("a", status("192.0.2.1"))), "a 192.0.2.1"}}},
	{"no pool, and asked by class", set(), []act{{put(service("a", class("calico"))), "a; ! a spec.ipFamilies NoPool"}}},
	{"classes", nil, []act{{
		put(service("a", class("calico")), service("b", class(loadbalancer.Class)), service("c", class("example.com/other"))), "a 10.9.0.0; b 10.9.0.1; c",
	}}},
	{"another's class is not touched, nor its address given", nil, []act{
		{put(service("c", class("example.com/other"), status("10.9.0.0"))), "c 10.9.0.0"},
		{put(service("d")), "c 10.9.0.0; d 10.9.0.1"},
		{put(service("e", addrs(`["10.9.0.0"]`))), "c 10.9.0.0; d 10.9.0.1; e; ! e " + addrsField + " AddressTaken"},
	}},
	{"only requested", func(in *loadbalancer.Input) { in.OnlyRequested = true }, []act{
		{put(service("a"), service("b", pools4(`["lb"]`)), service("c", class("calico"))), "a; b 10.9.0.0; c 10.9.0.1"},
		{put(service("b")), "a; b; c 10.9.0.1"},
		{func(in *loadbalancer.Input) { in.OnlyRequested = false }, "a 10.9.0.2; b 10.9.0.3; c 10.9.0.1"},
	}},
	{"pool by name and by prefix", set(lb, pool("second", "10.8.0.0/30", 30), pool("manual", "10.7.0.0/30", 30, manual)), []act{
		{put(service("a", pools4(`["second"]`)), service("b", pools4(`["10.8.0.0/30"]`)), service("c", pools4(`["manual"]`))), "a 10.8.0.0; b 10.8.0.1; c 10.7.0.0"},
		{put(service("a"), service("c")), "a 10.8.0.0; b 10.8.0.1; c 10.9.0.0"}, // Manual without a wish is left
		{put(service("b", pools4(`["lb"]`))), "a 10.8.0.0; b 10.9.0.1; c 10.9.0.0"},
	}},
	{"pool by namespace", func(in *loadbalancer.Input) {
		in.Pools = []model.Pool{pool("gold", "10.8.0.0/30", 30, of("tier == 'gold'")), lb}
		in.Namespaces = map[string]map[string]string{"rich": {"tier": "gold"}}
	}, []act{{put(service("a"), service("rich/b")), "a 10.9.0.0; b 10.8.0.0"}}},
	{"unknown pool, of another family, for another use", set(lb, lb6, pool("pods", "10.1.0.0/24", 26, pods)), []act{
		{put(service("a", pools4(`["absent"]`))), "a; ! a " + poolsField + " PoolNotFound"},
		{put(service("a", pools4(`["lb6"]`))), "a; ! a " + poolsField + " PoolUnusable"},
		{put(service("a", pools4(`["pods"]`))), "a; ! a " + poolsField + " PoolUnusable"},
		{put(service("a", pools4(`lb`))), "a; ! a " + poolsField + " InvalidValue"},
	}},
	{"an address by annotation, by the field, and by both", nil, []act{
		{put(service("a", addrs(`["10.9.0.5"]`)), service("b", field("10.9.0.6"))), "a 10.9.0.5; b 10.9.0.6"},
		{put(service("c", addrs(`["10.9.0.7"]`), field("10.9.0.7"))), "a 10.9.0.5; b 10.9.0.6; c 10.9.0.7"},
		{put(service("d", addrs(`["10.9.0.1"]`), field("10.9.0.2"))), "a 10.9.0.5; b 10.9.0.6; c 10.9.0.7; d; ! d spec.loadBalancerIP ConflictingRequests"},
		{put(service("c", addrs(`["10.9.0.1"]`), field("10.9.0.2"))), "a 10.9.0.5; b 10.9.0.6; c 10.9.0.7; d; ! c spec.loadBalancerIP ConflictingRequests; ! d spec.loadBalancerIP ConflictingRequests"},
	}},
	{"two addresses of a family, none, one of the other family", nil, []act{
		{put(service("a", addrs(`["10.9.0.1","10.9.0.2"]`))), "a; ! a " + addrsField + " ConflictingRequests"},
		{put(service("a", addrs(`["tor"]`))), "a; ! a " + addrsField + " InvalidValue"},
		{put(service("a", addrs(`["fd09::1"]`))), "a; ! a " + addrsField + " ConflictingRequests"},
		{put(service("a", addrs(`["10.9.0.1"]`))), "a 10.9.0.1"},
	}},
	{"an address outside the pools, of a pool that is not named, of a node", func(in *loadbalancer.Input) {
		in.Pools, in.InUse = []model.Pool{lb, pool("q", "10.8.0.0/30", 30)}, prefixes("10.9.0.0/32")
	}, []act{
		{put(service("a", addrs(`["192.0.2.1"]`))), "a; ! a " + addrsField + " OutsidePools"},
		{put(service("a", addrs(`["10.9.0.1"]`), pools4(`["q"]`))), "a; ! a " + poolsField + " ConflictingRequests"},
		{put(service("a", addrs(`["10.9.0.0"]`))), "a; ! a " + addrsField + " AddressTaken"},
		{put(service("a")), "a 10.9.0.1"},
	}},
	{"an address of a disabled pool, and of one being deleted", set(pool("off", "10.9.0.0/29", 30, disabled), pool("end", "10.8.0.0/30", 30, deleting)), []act{
		{put(service("a", addrs(`["10.9.0.1"]`)), service("b", addrs(`["10.8.0.1"]`)), service("c")), "a; b; c; ! a " + addrsField + " PoolUnusable; ! b " + addrsField + " PoolUnusable; ! c spec.ipFamilies NoPool"},
	}},
	{"an address that another has, then free", nil, []act{
		{put(service("a"), service("b", addrs(`["10.9.0.0"]`))), "a 10.9.0.1; b 10.9.0.0"}, // who asks by name comes first
		{put(service("c", addrs(`["10.9.0.1"]`))), "a 10.9.0.1; b 10.9.0.0; c; ! c " + addrsField + " AddressTaken"},
		{drop("a"), "b 10.9.0.0; c 10.9.0.1"},
	}},
	{"it keeps what it has while it cannot get what it asks for", nil, []act{
		{put(service("a"), service("b")), "a 10.9.0.0; b 10.9.0.1"},
		{put(service("b", addrs(`["10.9.0.0"]`))), "a 10.9.0.0; b 10.9.0.1; ! b " + addrsField + " AddressTaken"},
		{put(service("b", addrs(`["10.9.0.4"]`))), "a 10.9.0.0; b 10.9.0.4"},
		{put(service("c")), "a 10.9.0.0; b 10.9.0.4; c 10.9.0.2"}, // what was released comes last
	}},
	{"exhausted, and served when one goes", set(pool("lb", "10.9.0.0/31", 31)), []act{
		{put(service("a"), service("b"), service("c")), "a 10.9.0.0; b 10.9.0.1; c; ! c spec.ipFamilies PoolExhausted"},
		{drop("a"), "b 10.9.0.1; c 10.9.0.0"},
		{put(service("d")), "b 10.9.0.1; c 10.9.0.0; d; ! d spec.ipFamilies PoolExhausted"},
		{set(pool("lb", "10.9.0.0/31", 31), pool("more", "10.8.0.0/31", 31)), "b 10.9.0.1; c 10.9.0.0; d 10.8.0.0"},
	}},
	{"reserved: for those who ask by name", func(in *loadbalancer.Input) { in.Reserved = prefixes("10.9.0.0/29") }, []act{
		{put(service("a"), service("b", addrs(`["10.9.0.3"]`))), "a; b 10.9.0.3; ! a spec.ipFamilies PoolExhausted"},
	}},
	{"reserved later: kept", nil, []act{
		{put(service("a")), "a 10.9.0.0"},
		{func(in *loadbalancer.Input) { in.Reserved = prefixes("10.9.0.0/30") }, "a 10.9.0.0"},
		{put(service("b")), "a 10.9.0.0; b 10.9.0.4"},
	}},
	{"dual stack, one after the other, and back", set(lb, lb6), []act{
		{put(service("a"), service("b", dual), service("c", six)), "a 10.9.0.0; b 10.9.0.1 fd09::; c fd09::1"},
		{put(service("a", dual)), "a 10.9.0.0 fd09::2; b 10.9.0.1 fd09::; c fd09::1"},
		{put(service("b", six)), "a 10.9.0.0 fd09::2; b fd09::; c fd09::1"},
		{put(service("d", dual, addrs(`["fd09::7","10.9.0.7"]`))), "a 10.9.0.0 fd09::2; b fd09::; c fd09::1; d 10.9.0.7 fd09::7"},
	}},
	{"dual stack without a pool of the second family", nil, []act{
		{put(service("a", dual), service("b", prefer), service("c", six)), "a 10.9.0.0; b 10.9.0.1; c; ! a spec.ipFamilies NoPool; ! c spec.ipFamilies NoPool"},
	}},
	{"shared by ports, with a key", nil, []act{
		{put(service("a", key("k", 80)), service("b", key("k", 443)), service("c", key("k", 80)), service("d", key("other", 53))), "a 10.9.0.0; b 10.9.0.0; c 10.9.0.1; d 10.9.0.2; ! c " + shareField + " NotShared"},
		{put(service("e", key("k", 8080))), "a 10.9.0.0; b 10.9.0.0; c 10.9.0.1; d 10.9.0.2; e 10.9.0.0; ! c " + shareField + " NotShared"},
	}},
	{"shared, and the first goes", nil, []act{
		{put(service("a", key("k", 80)), service("b", key("k", 443))), "a 10.9.0.0; b 10.9.0.0"},
		{drop("a"), "b 10.9.0.0"},
		{put(service("c")), "b 10.9.0.0; c 10.9.0.1"},
		{drop("b"), "c 10.9.0.1"},
	}},
	{"a key that comes later, and the first goes", nil, []act{
		{put(service("a")), "a 10.9.0.0"},
		{put(service("a", key("k", 80)), service("b", key("k", 443))), "a 10.9.0.0; b 10.9.0.0"},
		{put(service("a", key("k", 80), cluster)), "a; b 10.9.0.0; ! a " + shareField + " NotHonoured"},
	}},
	{"annotations of who gets no address here", func(in *loadbalancer.Input) { in.OnlyRequested = true }, []act{
		{put(service("a", pools4(`["lb"]`), cluster), service("b", addrs(`["10.9.0.0"]`), class("example.com/other")), service("c", key("k", 80)), service("d", note("muslin.io/x", "y"), cluster)),
			"a; b; c; d; ! a " + poolsField + " NotHonoured; ! b " + addrsField + " NotHonoured; ! c " + shareField + " NotHonoured; ! d metadata.annotations[muslin.io/x] NotHonoured"},
		{func(in *loadbalancer.Input) { in.OnlyRequested, in.Pools = false, nil }, "a; b; c; d; ! a " + poolsField + " NotHonoured; ! b " + addrsField + " NotHonoured; ! c " + shareField + " NotHonoured; ! d metadata.annotations[muslin.io/x] NotHonoured"},
	}},
	{"a key across namespaces", nil, []act{{put(service("one/a", key("k", 80)), service("two/b", key("k", 443))), "a 10.9.0.0; b 10.9.0.1"}}},
	{"shared with externalTrafficPolicy Local", nil, []act{
		{put(service("a", key("k", 80), local), service("b", key("k", 443), local), service("c", key("k", 53))), "a 10.9.0.0; b 10.9.0.1; c 10.9.0.2; ! a " + shareField + " NotShared; ! b " + shareField + " NotShared; ! c " + shareField + " NotShared"},
		{put(service("b", key("l", 443), local), service("c", key("m", 53))), "a 10.9.0.0; b 10.9.0.1; c 10.9.0.2"},
		{put(service("d", key("s", 80), local, samePods), service("e", key("s", 443), local, samePods)), "a 10.9.0.0; b 10.9.0.1; c 10.9.0.2; d 10.9.0.3; e 10.9.0.3"},
	}},
	{"shared, and then the ports collide", nil, []act{
		{put(service("a", key("k", 80)), service("b", key("k", 443))), "a 10.9.0.0; b 10.9.0.0"},
		{put(service("b", key("k", 80))), "a 10.9.0.0; b 10.9.0.1; ! a " + shareField + " NotShared; ! b " + shareField + " NotShared"},
	}},
	{"shared by name", nil, []act{
		{put(service("a", key("k", 80), addrs(`["10.9.0.5"]`)), service("b", key("k", 443), addrs(`["10.9.0.5"]`)), service("c", addrs(`["10.9.0.5"]`))),
			"a 10.9.0.5; b 10.9.0.5; c; ! c " + addrsField + " AddressTaken"},
	}},
	{"the pool is deleted: kept, and told", nil, []act{
		{put(service("a"), service("b")), "a 10.9.0.0; b 10.9.0.1"},
		{set(pool("lb", "10.9.0.0/29", 30, deleting), pool("next", "10.8.0.0/30", 30)), "a 10.9.0.0; b 10.9.0.1; ! a status.loadBalancer PoolGone; ! b status.loadBalancer PoolGone"},
		{put(service("a", pools4(`["next"]`))), "a 10.8.0.0; b 10.9.0.1; ! b status.loadBalancer PoolGone"},
		{set(pool("next", "10.8.0.0/30", 30)), "a 10.8.0.0; b 10.9.0.1; ! b status.loadBalancer PoolGone"},
		{drop("b"), "a 10.8.0.0"},
	}},
	{"changed type, and back", nil, []act{
		{put(service("a"), service("b")), "a 10.9.0.0; b 10.9.0.1"},
		{put(service("a", cluster)), "a; b 10.9.0.1"},
		{put(service("a")), "a 10.9.0.2; b 10.9.0.1"},
	}},
	{"made anew under its name", nil, []act{
		{put(service("a")), "a 10.9.0.0"},
		{drop("a"), ""},
		{put(service("a", func(s *model.BalancedService) { s.UID = "another" })), "a 10.9.0.1"},
	}},
	{"adopted from the status", nil, []act{
		{put(service("a"), service("b", status("10.9.0.0")), service("c", status("192.0.2.9"))), "a 10.9.0.1; b 10.9.0.0; c 192.0.2.9; ! c status.loadBalancer ServedElsewhere"},
		{put(service("c", class(loadbalancer.Class))), "a 10.9.0.1; b 10.9.0.0; c 10.9.0.2"},
	}},
	{"adopted, shared as before", nil, []act{
		{put(service("a", key("k", 80), status("10.9.0.6")), service("b", key("k", 443), status("10.9.0.6"))), "a 10.9.0.6; b 10.9.0.6"},
	}},
	{"a status that somebody changed is put right", nil, []act{
		{put(service("a")), "a 10.9.0.0"},
		{func(in *loadbalancer.Input) { in.Services[0].Addrs = nil }, "a 10.9.0.0"},
		{func(in *loadbalancer.Input) { in.Services[0].Addrs = []netip.Addr{netip.MustParseAddr("10.9.0.5")} }, "a 10.9.0.0"},
	}},
	{"locked: nothing happens", func(in *loadbalancer.Input) { in.Locked = true }, []act{
		{put(service("a")), "a"},
		{func(in *loadbalancer.Input) { in.Locked = false }, "a 10.9.0.0"},
	}},
	{"a block of a node's", func(in *loadbalancer.Input) { in.Foreign = prefixes("10.9.0.0/30") }, []act{
		{put(service("a"), service("b", addrs(`["10.9.0.1"]`))), "a 10.9.0.4; b; ! b " + addrsField + " ForeignBlock"},
	}},
	{"a pool of one address", set(pool("one", "10.9.0.9/32", 32)), []act{{put(service("a"), service("b")), "a 10.9.0.9; b; ! b spec.ipFamilies PoolExhausted"}}},
	{"a pool of a whole /64", set(pool("vast", "fd09::/64", 122)), []act{{put(service("a", six)), "a fd09::"}}},
}

// TestStories: at each step all is decided anew from what is stored, after every
// single kind of write, as a controller does that ends each time.
func TestStories(t *testing.T) {
	for _, story := range stories {
		t.Run(story.name, func(t *testing.T) {
			memory := ipamtest.New()
			store := memory.Client(nil)
			in := &loadbalancer.Input{Pools: []model.Pool{lb}}
			if story.start != nil {
				story.start(in)
			}
			for i, a := range story.acts {
				a.do(in)
				if got := show(in, run(t, store, in)); got != a.want {
					t.Fatalf("after step %d:\ngot  %s\nwant %s", i+1, got, a.want)
				}
			}
			consistent(t, memory, in)
		})
	}
}

// consistent: each address of a block is in a status, each handle counts what it
// has, and each block has its claim.
func consistent(t *testing.T, memory *ipamtest.Store, in *loadbalancer.Input) {
	t.Helper()
	counted := map[string]map[netip.Prefix]int{}
	for cidr, b := range memory.Blocks() {
		for a := range b.Allocations() {
			if !slices.ContainsFunc(in.Services, func(s model.BalancedService) bool { return slices.Contains(s.Addrs, a.Addr) }) {
				t.Errorf("%s is given to %v and in no status", a.Addr, a.Owner)
			}
			if counted[a.Handle] == nil {
				counted[a.Handle] = map[netip.Prefix]int{}
			}
			counted[a.Handle][cidr]++
		}
	}
	for id, h := range memory.Handles() {
		if fmt.Sprint(h.Blocks) != fmt.Sprint(counted[id]) {
			t.Errorf("handle %s counts %v, has %v", id, h.Blocks, counted[id])
		}
	}
	for id := range counted {
		if _, ok := memory.Handles()[id]; !ok {
			t.Errorf("handle %s is missing", id)
		}
	}
	if a, b := len(memory.Affinities()), len(memory.Blocks()); a != b {
		t.Errorf("%d affinities of %d blocks", a, b)
	}
	for _, line := range memory.Broken() {
		t.Error(line)
	}
}

// TestHandle: Calico's own handle of a Service, which its tools look for.
func TestHandle(t *testing.T) {
	s := service("Default/Nginx")
	s.UID = "0b6b7e57-96d5-4a4b-a4dc-3e0c7f0a9a11"
	if got, want := loadbalancer.Handle(&s), "lb-zEzvERt7flyFCmWvYpm9YEfIXDoiUZ4OyZvejql68"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
