// Package arch holds the plan of the house as rules that a test can check: who
// may import whom, and that every package says what it is for.
//
// The rules are those of docs/architecture.md; each ban carries its reason. It
// reads packages with `go list` and touches nothing. Footprint: none.
package arch

import (
	"fmt"
	"slices"
	"strings"
)

// Module is the path of this module.
const Module = "github.com/muslin-net/muslin"

// Package is what `go list` says of a package.
type Package struct {
	ImportPath string
	Doc        string
	Imports    []string
	GoFiles    []string
}

// Rule bans imports from the packages below a path.
type Rule struct {
	From   string   // path below the module; "bgp" is that package alone, "felix/..." all below it
	Except []string // packages that have a rule of their own
	Allow  []string // when set, the only packages of this module that may be imported
	Ban    []string // prefixes of import paths that may not be imported
	Reason string
}

const (
	k8s     = "k8s.io/"
	calico  = "github.com/projectcalico/"
	gobgp   = "github.com/osrg/gobgp"
	netlink = "github.com/vishvananda/netlink"
	nlraw   = "github.com/mdlayher/netlink"
	nftlib  = "github.com/google/nftables"
	grpc    = "google.golang.org/grpc"
)

var outsidePure = []string{k8s, calico, gobgp, netlink, nlraw, nftlib, grpc, "log/slog", "os", "net/http", "sigs.k8s.io/"}

// Rules is the table of docs/architecture.md.
var Rules = []Rule{
	{From: "pkg/model", Allow: []string{}, Ban: outsidePure, Reason: "the nouns are shared by every room and depend on none"},
	{From: "pkg/selector", Allow: []string{"pkg/model"}, Ban: outsidePure, Reason: "a selector is a pure value"},
	{From: "pkg/validate", Allow: []string{"pkg/model", "pkg/selector"}, Ban: outsidePure, Reason: "validation is pure, so that every door gives the same answer"},
	{From: "pkg/compat", Allow: []string{"pkg/model"}, Ban: outsidePure, Reason: "conditions, muslinctl and the docs read one table"},
	{From: "pkg/nodeaddr", Allow: []string{"pkg/model"}, Ban: outsidePure, Reason: "which address a node has is decided from values, the same by every reader"},
	{From: "bgp", Allow: []string{"pkg/model", "pkg/selector"}, Ban: outsidePure, Reason: "bgp decides; it does not act"},
	{From: "ipam", Allow: []string{"pkg/model", "pkg/selector"}, Ban: outsidePure, Reason: "block algebra knows no API server"},
	{From: "ipam/alloc", Allow: []string{"ipam", "pkg/model", "pkg/selector", "pkg/task"}, Ban: outsidePure, Reason: "the allocator writes by a Store and knows no API server"},
	{From: "felix", Allow: []string{"pkg/model", "pkg/selector"}, Ban: outsidePure, Reason: "felix decides; its reconcilers act"},
	{From: "bgp/gobgp", Allow: []string{"bgp", "pkg/model"}, Ban: []string{k8s, calico, netlink, nlraw, nftlib}, Reason: "the speaker speaks; it neither reads the API nor writes the kernel"},
	{From: "felix/policy", Allow: []string{"pkg/model", "pkg/selector"}, Ban: outsidePure, Reason: "it decides what policy means; felix/policynft acts"},
	{From: "felix/...", Except: []string{"felix/cleanup", "felix/policy", "felix/nodeview", "felix/nodeview/kernel", "felix/policyrelay", "felix/policyrelay/relayrpc"}, Allow: []string{"felix", "felix/policy", "felix/internal/...", "pkg/model", "pkg/reconcile"}, Ban: []string{k8s, calico, gobgp, grpc}, Reason: "a reconciler sees one kernel and one desired state"},
	{From: "felix/nodeview", Allow: []string{"bgp", "felix", "felix/policy", "pkg/model"}, Ban: outsidePure, Reason: "what a node shows is a value: the agent fills it and muslinctl reads it"},
	{From: "felix/cleanup", Allow: []string{"felix/..."}, Ban: []string{k8s, calico, gobgp, grpc}, Reason: "it asks each reconciler to remove its own, and does without any other room"},
	{From: "ipam/loadbalancer", Allow: []string{"ipam", "ipam/alloc", "pkg/model", "pkg/selector"}, Ban: outsidePure, Reason: "who gets which address is decided from values; the controller acts"},
	{From: "ipam/kubestore", Allow: []string{"ipam", "pkg/model", "pkg/selector"}, Ban: []string{netlink, nlraw, nftlib, gobgp}, Reason: "a store stores"},
	{From: "pkg/kube", Allow: []string{"pkg/compat", "pkg/model", "pkg/nodeaddr", "pkg/selector", "pkg/validate", "pkg/kube/..."}, Ban: []string{netlink, nlraw, nftlib, gobgp}, Reason: "API types stop here; the kernel and the wire are other rooms"},
	{From: "pkg/kube/netpol", Allow: []string{"pkg/model", "pkg/selector"}, Ban: []string{"k8s.io/client-go", netlink, nlraw, nftlib, gobgp, grpc, "log/slog", "os", "net/http"}, Reason: "a translation is pure, so that goldens and tools read objects as the agent does"},
	{From: "cmd/agent/cniserver", Allow: []string{"pkg/model", "pkg/task", "pkg/cnirpc", "pkg/cnirpc/..."}, Ban: []string{k8s, calico, netlink, nlraw, nftlib, gobgp}, Reason: "orchestration reaches the rooms through interfaces it declares"},
	{From: "pkg/metricsserver", Allow: []string{}, Ban: []string{calico, netlink, nlraw, nftlib, gobgp, grpc}, Reason: "it serves whoever gathers, and knows nobody's numbers"},
	{From: "felix/policyrelay", Allow: []string{"felix/policy", "pkg/model", "pkg/selector", "pkg/task", "felix/policyrelay/relayrpc"}, Ban: []string{calico, netlink, nlraw, nftlib, gobgp}, Reason: "it leaves out pods that cannot matter; what is allowed the engine decides"},
	{From: "felix/policyrelay/relayrpc", Allow: []string{}, Ban: []string{k8s, calico, netlink, nlraw, nftlib, gobgp}, Reason: "it is a wire"},
	{From: "cmd/cni", Allow: []string{"cmd/cni/...", "pkg/cnirpc", "pkg/cnirpc/..."}, Ban: []string{k8s, calico, netlink, nlraw, nftlib, gobgp, "net/http"}, Reason: "the plugin starts once a pod and has to be small"},
}

// Importers names libraries that few packages may import.
var Importers = map[string][]string{
	gobgp:  {"bgp/gobgp"},
	nftlib: {"felix/internal/nftw", "felix/nft", "felix/policynft"},
}

// AgentOnly are packages that only the named package may import.
var AgentOnly = map[string]string{"cmd/agent/app": "cmd/agent"}

// Check compares packages with the rules and returns one line for each
// violation.
func Check(pkgs []Package) []string {
	var out []string
	for _, p := range pkgs {
		out = append(out, checkDoc(p)...)
		for _, r := range Rules {
			if path := local(p.ImportPath); matches(r.From, path) && !anyMatch(r.Except, path) {
				out = append(out, r.check(p)...)
			}
		}
		out = append(out, checkSingles(p)...)
	}
	return out
}

func checkDoc(p Package) []string {
	if p.Doc == "" && len(p.GoFiles) > 0 {
		return []string{p.ImportPath + ": no package doc: say what it is for, what it never does, its footprint"}
	}
	return nil
}

func (r Rule) check(p Package) []string {
	var out []string
	for _, imp := range p.Imports {
		if l, ours := strings.CutPrefix(imp, Module+"/"); ours {
			if r.Allow != nil && !anyMatch(r.Allow, l) {
				out = append(out, fmt.Sprintf("%s imports %s: %s", local(p.ImportPath), l, r.Reason))
			}
			continue
		}
		for _, b := range r.Ban {
			if imp == b || strings.HasPrefix(imp, strings.TrimSuffix(b, "/")+"/") {
				out = append(out, fmt.Sprintf("%s imports %s: %s", local(p.ImportPath), imp, r.Reason))
			}
		}
	}
	return out
}

func checkSingles(p Package) []string {
	var out []string
	from := local(p.ImportPath)
	for _, imp := range p.Imports {
		for lib, only := range Importers {
			if strings.HasPrefix(imp, lib) && !slices.Contains(only, from) && !strings.HasPrefix(from, "hack/") {
				out = append(out, fmt.Sprintf("%s imports %s: only %s may, so that it can be replaced", from, imp, strings.Join(only, ", ")))
			}
		}
		for pkg, only := range AgentOnly {
			if imp == Module+"/"+pkg && from != only {
				out = append(out, fmt.Sprintf("%s imports %s: only %s may", from, pkg, only))
			}
		}
	}
	return out
}

func local(path string) string { return strings.TrimPrefix(path, Module+"/") }

func anyMatch(patterns []string, path string) bool {
	for _, p := range patterns {
		if matches(p, path) {
			return true
		}
	}
	return false
}

// matches compares like go's package patterns, but "a/..." is what lies below
// a, not a itself.
func matches(pattern, path string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return strings.HasPrefix(path, base+"/")
	}
	return pattern == path
}
