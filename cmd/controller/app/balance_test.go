package app_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
	"k8s.io/client-go/rest"
)

// A lbCase lives in a namespace of its own with a pool of its own. In what is applied,
// in what is deleted and in want, # is the number of the case: pools are p# (10.20.#.0/29, in blocks
// of four), further ones as the case says, and the namespace is lb#.
type lbCase struct {
	name  string
	extra string // objects beside the pool
	steps []lbStep
}

type lbStep struct {
	do   string // applied; "-kind/name" is deleted
	want string // Services with their addresses, and "name!Reason" of the last event
}

// svc is a Service of type LoadBalancer with one port.
func svc(name, annotations, spec string) string {
	if spec != "" {
		spec = ", " + spec
	}
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: lb#, annotations: {%s}}\nspec: {type: LoadBalancer, allocateLoadBalancerNodePorts: false%s}\n---\n",
		name, annotations, spec)
}

const (
	p80, p443, p53 = "ports: [{port: 80}]", "ports: [{port: 443}]", "ports: [{port: 53, protocol: UDP}]"
	keyed          = "muslin.io/shared-ip-key: k"
)

func lbPool(name, cidr, more string) string {
	return v3("IPPool", name, fmt.Sprintf(`{cidr: %s, blockSize: 30, allowedUses: [LoadBalancer], nodeSelector: all()%s}`, cidr, more))
}

func requested(a string) string { return fmt.Sprintf(`projectcalico.org/loadBalancerIPs: '["%s"]'`, a) }
func fromPool(p string) string {
	return fmt.Sprintf(`projectcalico.org/ipv4pools: '["%s"]'`, p)
}

var lbCases = []lbCase{
	{"one after the other", "", []lbStep{
		{svc("a", "", p80), "a=10.20.#.0"},
		{svc("b", "", p80), "a=10.20.#.0 b=10.20.#.1"},
		{"-service/a", "b=10.20.#.1"},
		{svc("c", "", p80), "b=10.20.#.1 c=10.20.#.2"}, // what was released is given last
	}},
	{"an annotation that is of other kinds", "", []lbStep{
		{svc("a", `cni.projectcalico.org/ipv4pools: '["p#"]'`, p80), "a=10.20.#.0 a!Unsupported"},
		{strings.Replace(svc("b", `cni.projectcalico.org/floatingIPs: '["192.0.2.1"]'`, p80), "LoadBalancer, allocateLoadBalancerNodePorts: false", "ClusterIP", 1), "a=10.20.#.0 a!Unsupported b= b!Unsupported"},
	}},
	{"annotations of MetalLB and Cilium", "", []lbStep{
		{svc("a", "metallb.universe.tf/loadBalancerIPs: 10.20.#.5", p80), "a=10.20.#.0 a!Unsupported"},
		{svc("b", "metallb.io/allow-shared-ip: k", p80), "a=10.20.#.0 b=10.20.#.1 a!Unsupported b!Unsupported"},
		{svc("c", "io.cilium/lb-ipam-ips: 10.20.#.6", p80) + svc("d", "lbipam.cilium.io/sharing-key: k", p80), "a=10.20.#.0 b=10.20.#.1 c=10.20.#.2 d=10.20.#.3 c!Unsupported d!Unsupported"},
	}},
	{"a sharing key on who gets no address", "", []lbStep{
		{strings.Replace(svc("a", keyed, p80), "LoadBalancer, allocateLoadBalancerNodePorts: false", "ClusterIP", 1) + svc("b", keyed, p80+", loadBalancerClass: example.com/other"),
			"a= b= a!NotHonoured b!NotHonoured"},
	}},
	{"classes", "", []lbStep{
		{svc("a", "", p80+", loadBalancerClass: calico") + svc("b", "", p80+", loadBalancerClass: example.com/other"), "a=10.20.#.0 b="},
		{svc("c", "", p80+", loadBalancerClass: muslin.io/load-balancer"), "a=10.20.#.0 b= c=10.20.#.1"},
	}},
	{"changed to another type, and to another's class", "", []lbStep{
		{svc("a", "", p80) + svc("b", "", p80), "a=10.20.#.0 b=10.20.#.1"},
		{strings.Replace(svc("a", "", p80), "LoadBalancer, allocateLoadBalancerNodePorts: false", "ClusterIP", 1), "a= b=10.20.#.1"},
		{svc("a", "", p80+", loadBalancerClass: example.com/other"), "a= b=10.20.#.1"},
		{svc("c", "", p80) + svc("d", requested("10.20.#.0"), p80), "a= b=10.20.#.1 c=10.20.#.2 d=10.20.#.0"},
	}},
	{"pool by name", lbPool("p#-second", "10.21.#.0/29", ", assignmentMode: Manual"), []lbStep{
		{svc("a", fromPool("p#-second"), p80), "a=10.21.#.0"},
		{svc("a", fromPool("p#"), p80), "a=10.20.#.0"},
		{svc("a", fromPool("10.21.#.0/29"), p80), "a=10.21.#.1"},
		{svc("a", "", p80), "a=10.20.#.1"}, // not out of a Manual pool without a wish
	}},
	{"pool by the selector of namespaces", lbPool("a#-gold", "10.21.#.0/29", `, namespaceSelector: "tier == 'gold' && kubernetes.io/metadata.name == 'lb#'"`), []lbStep{
		{svc("a", "", p80), "a=10.20.#.0"},
		{"apiVersion: v1\nkind: Namespace\nmetadata: {name: lb#, labels: {tier: gold}}\n---\n" + svc("b", "", p80), "a=10.20.#.0 b=10.21.#.0"},
	}},
	{"unknown pool", "", []lbStep{
		{svc("a", fromPool("absent"), p80), "a= a!PoolNotFound"},
		{svc("a", fromPool("p#"), p80), "a=10.20.#.0"},
	}},
	{"pool for pods", v3("IPPool", "p#-pods", `{cidr: 10.22.#.0/24, nodeSelector: all(), assignmentMode: Manual}`), []lbStep{
		{svc("a", fromPool("p#-pods"), p80), "a= a!PoolUnusable"},
	}},
	{"pools of a family that the Service has not", "", []lbStep{
		{svc("a", `projectcalico.org/ipv6pools: '["p#"]'`, p80), "a=10.20.#.0 a!ConflictingRequests"},
		{svc("b", `projectcalico.org/ipv6pools: '["p#"]'`, p80+", ipFamilyPolicy: PreferDualStack"), "a=10.20.#.0 a!ConflictingRequests b=10.20.#.1"},
	}},
	{"annotation that nobody knows", "", []lbStep{{svc("a", "muslin.io/shared-ip: k", p80), "a=10.20.#.0 a!UnknownAnnotation"}}},
	{"annotation that is no JSON", "", []lbStep{{svc("a", "projectcalico.org/ipv4pools: p#", p80), "a= a!InvalidValue"}}},
	{"address by annotation", "", []lbStep{
		{svc("a", requested("10.20.#.5"), p80), "a=10.20.#.5"},
		{svc("a", requested("10.20.#.2"), p80), "a=10.20.#.2"},
		{svc("b", requested("10.20.#.5"), p80), "a=10.20.#.2 b=10.20.#.5"},
	}},
	{"address by field", "", []lbStep{{svc("a", "", p80+", loadBalancerIP: 10.20.#.6"), "a=10.20.#.6"}}},
	{"annotation and field contradict", "", []lbStep{
		{svc("a", requested("10.20.#.1"), p80+", loadBalancerIP: 10.20.#.2"), "a= a!ConflictingRequests"},
		{svc("a", requested("10.20.#.2"), p80+", loadBalancerIP: 10.20.#.2"), "a=10.20.#.2"},
	}},
	{"address outside pools", "", []lbStep{{svc("a", requested("192.0.2.1"), p80), "a= a!OutsidePools"}}},
	{"address outside the pool named beside it", lbPool("p#-second", "10.21.#.0/29", ", assignmentMode: Manual"), []lbStep{
		{svc("a", requested("10.20.#.1")+", "+fromPool("p#-second"), p80), "a= a!ConflictingRequests"},
	}},
	{"address of another", "", []lbStep{
		{svc("a", requested("10.20.#.3"), p80), "a=10.20.#.3"},
		{svc("b", requested("10.20.#.3"), p80), "a=10.20.#.3 b= b!AddressTaken"},
		{"-service/a", "b=10.20.#.3"},
	}},
	{"keeps its own while the other is taken", "", []lbStep{
		{svc("a", "", p80) + svc("b", requested("10.20.#.3"), p80), "a=10.20.#.0 b=10.20.#.3"},
		{svc("a", requested("10.20.#.3"), p80), "a=10.20.#.0 b=10.20.#.3 a!AddressTaken"},
		{svc("b", requested("10.20.#.4"), p80), "a=10.20.#.3 b=10.20.#.4"},
	}},
	{"exhausted", v3("IPReservation", "r#", `{reservedCIDRs: [10.20.#.2/31, 10.20.#.4/30]}`), []lbStep{
		{svc("a", requested("10.20.#.0"), p80) + svc("b", requested("10.20.#.1"), p80), "a=10.20.#.0 b=10.20.#.1"},
		{svc("c", "", p80), "a=10.20.#.0 b=10.20.#.1 c= c!PoolExhausted"},
		{"-service/b", "a=10.20.#.0 c=10.20.#.1"},
	}},
	{"reserved", v3("IPReservation", "r#", `{reservedCIDRs: [10.20.#.0/29]}`), []lbStep{
		{svc("a", "", p80) + svc("b", requested("10.20.#.4"), p80), "a= b=10.20.#.4 a!PoolExhausted"},
		{"-ipreservation/r#", "a=10.20.#.5 b=10.20.#.4"},
	}},
	{"reserved later", "", []lbStep{
		{svc("a", "", p80), "a=10.20.#.0"},
		{v3("IPReservation", "r#", `{reservedCIDRs: [10.20.#.0/30]}`) + svc("b", "", p80), "a=10.20.#.0 b=10.20.#.4"},
	}},
	{"dual stack", v3("IPPool", "p#-six", `{cidr: "fd20:#::/124", blockSize: 126, allowedUses: [LoadBalancer], nodeSelector: all(), namespaceSelector: "kubernetes.io/metadata.name == 'lb#'"}`), []lbStep{
		{svc("a", "", p80+", ipFamilyPolicy: RequireDualStack"), "a=10.20.#.0,fd20:#::"},
		{svc("b", "", p80+", ipFamilies: [IPv6]"), "a=10.20.#.0,fd20:#:: b=fd20:#::1"},
		{svc("a", "", p80+", ipFamilyPolicy: SingleStack"), "a=10.20.#.0 b=fd20:#::1"},
		{svc("b", `projectcalico.org/loadBalancerIPs: '["fd20:#::5","10.20.#.5"]'`, p80+", ipFamilyPolicy: PreferDualStack, ipFamilies: [IPv6, IPv4]"), "a=10.20.#.0 b=10.20.#.5,fd20:#::5"},
	}},
	{"family without a pool", "", []lbStep{
		{svc("a", "", p80+", ipFamilyPolicy: RequireDualStack") + svc("b", "", p80+", ipFamilies: [IPv6]"), "a=10.20.#.0 b= a!NoPool b!NoPool"},
		{svc("c", "", p80+", ipFamilyPolicy: PreferDualStack"), "a=10.20.#.0 b= c=10.20.#.1 a!NoPool b!NoPool"},
	}},
	{"address of a family that the Service has not", "", []lbStep{{svc("a", requested("fd20::1"), p80), "a= a!ConflictingRequests"}}},
	{"two addresses of one family", "", []lbStep{{svc("a", `projectcalico.org/loadBalancerIPs: '["10.20.#.1","10.20.#.2"]'`, p80), "a= a!ConflictingRequests"}}},
	{"shared by ports", "", []lbStep{
		{svc("a", keyed, p80), "a=10.20.#.0"},
		{svc("b", keyed, p443), "a=10.20.#.0 b=10.20.#.0"},
		{svc("c", keyed, p80), "a=10.20.#.0 b=10.20.#.0 c=10.20.#.1 c!NotShared"},
		{svc("d", "", p53), "a=10.20.#.0 b=10.20.#.0 c=10.20.#.1 d=10.20.#.2"},
	}},
	{"shared, and the first goes", "", []lbStep{
		{svc("a", keyed, p80), "a=10.20.#.0"},
		{svc("b", keyed, p443), "a=10.20.#.0 b=10.20.#.0"},
		{"-service/a", "b=10.20.#.0"},
		{svc("c", "", p80), "b=10.20.#.0 c=10.20.#.1"},
	}},
	{"shared with policy Local", "", []lbStep{
		{svc("a", keyed, p80+", externalTrafficPolicy: Local, selector: {app: one}"), "a=10.20.#.0"},
		{svc("b", keyed, p443+", externalTrafficPolicy: Local, selector: {app: one}"), "a=10.20.#.0 b=10.20.#.0"},
		{svc("c", keyed, p53+", externalTrafficPolicy: Local, selector: {app: two}"), "a=10.20.#.0 b=10.20.#.0 c=10.20.#.1 c!NotShared"},
	}},
	{"shared by name, by who may not", "", []lbStep{
		{svc("a", requested("10.20.#.1"), p80), "a=10.20.#.1"},
		{svc("b", keyed+", "+requested("10.20.#.1"), p443), "a=10.20.#.1 b= b!AddressTaken"},
		{svc("a", keyed+", "+requested("10.20.#.1"), p80), "a=10.20.#.1 b=10.20.#.1"},
	}},
	{"ports collide later", "", []lbStep{
		{svc("a", keyed, p80), "a=10.20.#.0"},
		{svc("b", keyed, p443), "a=10.20.#.0 b=10.20.#.0"},
		{svc("b", keyed, p80), "a=10.20.#.0 b=10.20.#.1 a!NotShared b!NotShared"},
	}},
	{"pool disabled", "", []lbStep{
		{svc("a", "", p80), "a=10.20.#.0"},
		{"patch p# {\"spec\":{\"disabled\":true}}", "a=10.20.#.0"},
		{svc("b", fromPool("p#"), p80), "a=10.20.#.0 b= b!PoolUnusable"},
	}},
	{"pool deleted", lbPool("p#-next", "10.21.#.0/29", ", assignmentMode: Manual"), []lbStep{
		{svc("a", "", p80) + svc("b", fromPool("p#"), p80), "a=10.20.#.0 b=10.20.#.1"},
		{"-ippool/p#", "a=10.20.#.0 b=10.20.#.1 a!PoolGone b!PoolGone"}, // kept, and told
		{svc("b", fromPool("p#-next"), p80), "a=10.20.#.0 b=10.21.#.0 a!PoolGone"},
		{"-service/a", "b=10.21.#.0"}, // and the pool goes: see below
	}},
	{"no pool", "-ippool/p#", []lbStep{
		{svc("a", "", p80+", loadBalancerClass: calico"), "a= a!NoPool"},
	}},
	{"of an address that another allocator gave", "", []lbStep{
		{svc("a", "", p80+", loadBalancerClass: example.com/other"), "a="},
		{"status a 10.20.#.0", "a=10.20.#.0"},
		{svc("b", "", p80), "a=10.20.#.0 b=10.20.#.1"},
	}},
	{"a status that somebody changes", "", []lbStep{
		{svc("a", "", p80), "a=10.20.#.0"},
		{"status a 10.20.#.7", "a=10.20.#.0"},
	}},
	{"made anew", "", []lbStep{
		{svc("a", "", p80), "a=10.20.#.0"},
		{"-service/a", ""},
		{svc("a", "", p80), "a=10.20.#.1"},
	}},
}

// do carries out one step with kubectl.
func (c lbCase) do(t *testing.T, n int, what string) {
	t.Helper()
	what = numbered(what, n)
	words := strings.SplitN(what, " ", 3)
	switch {
	case words[0] == "patch":
		server.MustKubectl(t, "", "patch", "ippool", words[1], "--type=merge", "-p", words[2])
	case words[0] == "status":
		server.MustKubectl(t, "", "-n", numbered("lb#", n), "patch", "service", words[1], "--subresource=status", "--type=merge", "-p",
			`{"status":{"loadBalancer":{"ingress":[{"ip":"`+words[2]+`"}]}}}`)
	case strings.HasPrefix(what, "-"):
		server.MustKubectl(t, "", "-n", numbered("lb#", n), "delete", "--wait=false", what[1:])
	}
}

func numbered(text string, n int) string { return strings.ReplaceAll(text, "#", strconv.Itoa(n)) }

// applied reports whether a step is YAML.
func applied(what string) bool { return strings.HasPrefix(what, "apiVersion") }

// services gives, by namespace, what TestServices wants to see; versions are those
// of the objects.
func services(t *testing.T) (state map[string]string, versions string) {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Name, Namespace, ResourceVersion string }
			Status   struct {
				LoadBalancer struct{ Ingress []struct{ IP string } }
			}
		}
	}
	decode(t, &list, "/api/v1/services")
	of := map[string][]string{}
	for _, s := range list.Items {
		var ips []string
		for _, i := range s.Status.LoadBalancer.Ingress {
			ips = append(ips, i.IP)
		}
		of[s.Metadata.Namespace] = append(of[s.Metadata.Namespace], s.Metadata.Name+"="+strings.Join(ips, ","))
		versions += s.Metadata.Namespace + "/" + s.Metadata.Name + "@" + s.Metadata.ResourceVersion + "\n"
	}
	state = map[string]string{}
	for namespace, lines := range of {
		slices.Sort(lines)
		state[namespace] = strings.Join(lines, " ")
	}
	return state, versions
}

// decode asks the server, without the cost of a process.
func decode(t *testing.T, into any, path string) {
	t.Helper()
	cfg := server.Config()
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Get(cfg.Host + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
}

// reported are the events of Services, as namespace, name and reason.
func reported(t *testing.T) map[string]bool {
	t.Helper()
	var list struct {
		Items []struct {
			Reason         string
			InvolvedObject struct{ Kind, Namespace, Name string }
		}
	}
	decode(t, &list, "/api/v1/events")
	out := map[string]bool{}
	for _, e := range list.Items {
		if e.InvolvedObject.Kind == "Service" {
			out[e.InvolvedObject.Namespace+" "+e.InvolvedObject.Name+"!"+e.Reason] = true
		}
	}
	return out
}

// missing names what of a want is not so; empty: nothing.
func missing(namespace, want string, state map[string]string, events map[string]bool) string {
	var have []string
	for _, word := range strings.Fields(want) {
		if strings.Contains(word, "!") {
			if !events[namespace+" "+word] {
				return "no event " + word
			}
			continue
		}
		have = append(have, word)
	}
	if got := state[namespace]; got != strings.Join(have, " ") {
		return fmt.Sprintf("got %q, want %q", got, strings.Join(have, " "))
	}
	return ""
}

// TestServices plays all cases at once on one server, and begins each step with a
// new controller, which finds everything as its predecessor left it and changes
// nothing of what it did. The server is its own: a case that fails leaves pools and
// addresses that other tests would meet.
func TestServices(t *testing.T) {
	shared := server
	server = kubetest.StartWithCRDs(t)
	defer func() { server = shared }()
	server.Install(t)
	var objects, gone strings.Builder
	for n, c := range lbCases {
		fmt.Fprintf(&objects, "apiVersion: v1\nkind: Namespace\nmetadata: {name: lb%d}\n---\n", n)
		objects.WriteString(numbered(lbPool("p#", "10.20.#.0/29", `, namespaceSelector: "kubernetes.io/metadata.name == 'lb#'"`), n))
		if applied(c.extra) {
			objects.WriteString(numbered(c.extra, n))
		} else {
			gone.WriteString(numbered(c.extra, n))
		}
	}
	server.MustKubectl(t, objects.String(), "apply", "-f", "-")
	server.MustKubectl(t, "", "delete", strings.TrimPrefix(gone.String(), "-"))
	stop := replica(t, "one")
	defer func() { stop() }()
	for step := range 4 {
		var yaml strings.Builder
		for n, c := range lbCases {
			if step < len(c.steps) && applied(c.steps[step].do) {
				yaml.WriteString(numbered(c.steps[step].do, n))
			} else if step < len(c.steps) {
				c.do(t, n, c.steps[step].do)
			}
		}
		server.MustKubectl(t, yaml.String(), "apply", "-f", "-")
		settled(t, step)
		_, before := services(t)
		stop()
		stop = replica(t, fmt.Sprintf("after-%d", step))
		shows(t, fmt.Sprintf("after-%d", step), "-n", "muslin-system", "get", "lease", "muslin-controller", "-o", "jsonpath={.spec.holderIdentity}")
		probe(t, step)
		if _, after := services(t); !strings.HasPrefix(withoutProbes(after), withoutProbes(before)) || len(withoutProbes(after)) != len(withoutProbes(before)) {
			t.Errorf("step %d: a new controller wrote to Services:\n%s\nbefore:\n%s", step+1, after, before)
		}
	}
	gonePool(t)
	calicoFormat(t)
}

// settled waits until each case is as it wants to be after a step.
func settled(t *testing.T, step int) {
	t.Helper()
	wrong := map[int]string{}
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		state, _ := services(t)
		events := reported(t)
		wrong = map[int]string{}
		for n, c := range lbCases {
			want := c.steps[min(step, len(c.steps)-1)].want
			if why := missing(fmt.Sprintf("lb%d", n), numbered(want, n), state, events); why != "" {
				wrong[n] = why
			}
		}
		if len(wrong) == 0 {
			return
		}
	}
	for _, n := range slices.Sorted(maps.Keys(wrong)) {
		t.Errorf("%s, after step %d: %s", lbCases[n].name, step+1, wrong[n])
	}
	if t.Failed() {
		t.FailNow()
	}
}

// probe is a Service that a new controller serves: then it has looked at all.
func probe(t *testing.T, step int) {
	t.Helper()
	server.MustKubectl(t, v3("IPPool", "probe", `{cidr: 10.29.0.0/24, allowedUses: [LoadBalancer], nodeSelector: all(), assignmentMode: Manual}`)+
		strings.ReplaceAll(svc(fmt.Sprintf("probe-%d", step), fromPool("probe"), p80), "lb#", "default"), "apply", "-f", "-")
	shows(t, "10.29.0.", "get", "service", fmt.Sprintf("probe-%d", step), "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
}

func withoutProbes(versions string) string {
	var out []string
	for _, line := range strings.Split(versions, "\n") {
		if !strings.HasPrefix(line, "default/") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// gonePool: the pool that was deleted goes once nobody has an address of it.
func gonePool(t *testing.T) {
	t.Helper()
	for n, c := range lbCases {
		if c.name != "pool deleted" {
			continue
		}
		server.MustKubectl(t, "", "wait", "--for=delete", fmt.Sprintf("ippool/p%d", n), "--timeout=30s")
	}
}

// calicoFormat: blocks, affinities and handles are as Calico's tools read them.
func calicoFormat(t *testing.T) {
	t.Helper()
	shows(t, "virtual:load-balancer", "get", "ipamblock", "10-20-0-0-30", "-o", "jsonpath={.spec.affinity}")
	shows(t, "confirmed virtual load-balancer", "get", "blockaffinity", "load-balancer-10-20-0-0-30", "-o", "jsonpath={.spec.state} {.spec.type} {.spec.node}")
	shows(t, `"namespace":"lb0","service":"c"`, "get", "ipamblock", "10-20-0-0-30", "-o", "jsonpath={.spec.attributes[*].secondary}")
	shows(t, "lb-", "get", "ipamhandles", "-o", "jsonpath={.items[*].spec.handleID}")
	shows(t, "AllServices", "get", "kubecontrollersconfiguration", "default", "-o", "jsonpath={.spec.controllers.loadBalancer.assignIPs}")
}
