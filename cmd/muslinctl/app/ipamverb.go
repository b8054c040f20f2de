package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/ipamview"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
	"github.com/muslin-net/muslin/cmd/muslinctl/print"
	"github.com/muslin-net/muslin/cmd/muslinctl/world"
	"github.com/muslin-net/muslin/ipam"
)

func (t *Tool) ipam() *cobra.Command {
	return group("ipam", "Look at addresses, and put them right", "Look at how addresses are used, check them against the pods, and release them.",
		t.ipamShow(), t.ipamCheck(), t.ipamRelease(), t.ipamSplit(), t.ipamConfigure())
}

func (t *Tool) ipamShow() *cobra.Command {
	var blocks, borrowed, config bool
	var ip string
	c := &cobra.Command{
		Use:   "show",
		Short: "Show how full pools and blocks are, or who has an address",
		Example: `  muslinctl ipam show
  muslinctl ipam show --show-blocks
  muslinctl ipam show --ip 10.244.1.17
  muslinctl ipam show --show-borrowed
  muslinctl ipam show --show-configuration`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := t.surveyor()
			if err != nil {
				return err
			}
			switch {
			case config:
				return t.showConfiguration(c.Context(), s)
			case ip != "":
				return t.showAddress(c.Context(), s, ip)
			}
			v, err := s.usage(c.Context())
			if err != nil {
				return err
			}
			if borrowed {
				return print.Rows(t.Out, v.Borrowed())
			}
			return print.Rows(t.Out, v.Usage(blocks))
		},
	}
	f := c.Flags()
	f.BoolVar(&blocks, "show-blocks", false, "a row for each block too")
	f.BoolVar(&borrowed, "show-borrowed", false, "addresses that a node uses out of another node's block")
	f.BoolVar(&config, "show-configuration", false, "the settings of IPAM")
	f.StringVar(&ip, "ip", "", "who has this address")
	c.MarkFlagsMutuallyExclusive("show-blocks", "show-borrowed", "show-configuration", "ip")
	return c
}

func (t *Tool) showConfiguration(ctx context.Context, s *surveyor) error {
	o, err := s.client.Get(ctx, kind.MustFind("ipamconfig"), "default")
	if apierrors.IsNotFound(err) {
		o, err = api.Object{}, nil
	}
	if err != nil {
		return err
	}
	rows := [][]string{{"PROPERTY", "VALUE"}}
	for _, p := range [][3]string{
		{"StrictAffinity", "strictAffinity", "false"}, {"AutoAllocateBlocks", "autoAllocateBlocks", "true"}, {"MaxBlocksPerHost", "maxBlocksPerHost", "0"},
		{"KubeVirtVMAddressPersistence", "kubeVirtVMAddressPersistence", "Enabled"}, {"IPCooldownSeconds", "ipCooldownSeconds", "0"},
	} {
		rows = append(rows, []string{p[0], kind.Text(o, "spec."+p[1], p[2])})
	}
	return print.Rows(t.Out, rows)
}

func (t *Tool) showAddress(ctx context.Context, s *surveyor, text string) error {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return api.Usagef("--ip: %w", err)
	}
	b, _, err := s.blockOf(ctx, ip)
	if err != nil {
		return err
	}
	if b == nil {
		fmt.Fprintf(t.Out, "%s is not assigned: no block holds it\n", ip)
		return nil
	}
	owner, ok := b.Owner(ip)
	if !ok {
		fmt.Fprintf(t.Out, "%s is not assigned\nBlock: %s (%s)\n", ip, b.CIDR(), b.Affinity())
		return nil
	}
	fmt.Fprintf(t.Out, "IP %s is in use\nHandle ID: %s\nBlock: %s (%s)\nAttributes:\n", ip, owner.Handle, b.CIDR(), b.Affinity())
	for _, k := range sortedKeys(owner.Owner) {
		fmt.Fprintf(t.Out, "  %s: %s\n", k, owner.Owner[k])
	}
	return nil
}

// blockOf finds the block of an address: by the block size of its pool, else by
// the names of all blocks. A nil block means that there is none.
func (s *surveyor) blockOf(ctx context.Context, ip netip.Addr) (*ipam.Block, ipam.Revision, error) {
	pools, _, err := world.ReadPools(ctx, s.client)
	if err != nil {
		return nil, ipam.Revision{}, err
	}
	v, tries := &ipamview.Survey{Pools: pools}, []netip.Prefix(nil)
	if p, ok := v.PoolOf(ip); ok {
		if cidr, err := ip.Prefix(p.BlockSize); err == nil {
			tries = append(tries, cidr)
		}
	}
	cidrs, err := s.store.BlockCIDRs(ctx, netip.PrefixFrom(ip, ip.BitLen()))
	if err != nil {
		return nil, ipam.Revision{}, err
	}
	for _, cidr := range append(tries, cidrs...) {
		b, rev, err := s.store.Blocks().Get(ctx, cidr)
		if !errors.Is(err, ipam.ErrNotFound) {
			return b, rev, err
		}
	}
	return nil, ipam.Revision{}, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// FindingsError means that a check found something.
type FindingsError struct{ text string }

func (e *FindingsError) Error() string { return e.text }

// ExitCode is that of findings.
func (*FindingsError) ExitCode() int { return api.ExitFindings }

// report is what `ipam check -o FILE` writes and `ipam release --from-report`
// reads.
type report struct {
	Version     string             `json:"version"`
	ClusterGUID string             `json:"clusterGUID"`
	Findings    []ipamview.Finding `json:"findings"`
}

type checkOptions struct {
	allIPs, problemIPs bool
	file               string
}

func (t *Tool) ipamCheck() *cobra.Command {
	var o checkOptions
	c := &cobra.Command{
		Use:   "check",
		Short: "Compare blocks, handles and affinities with nodes and pods",
		Long: `Compare blocks, handles and affinities with nodes and pods. What looks wrong is
looked at a second time, so that a pod which starts meanwhile is not reported.
The exit code is 4 when something was found.`,
		Example: "  muslinctl ipam check\n  muslinctl ipam check -o report.json\n  muslinctl ipam release --from-report report.json",
		Args:    usage(cobra.NoArgs),
		RunE:    func(c *cobra.Command, _ []string) error { return t.runCheckIPAM(c.Context(), o) },
	}
	f := c.Flags()
	f.BoolVar(&o.allIPs, "show-all-ips", false, "list every assigned address")
	f.BoolVar(&o.problemIPs, "show-problem-ips", true, "list every finding")
	f.StringVarP(&o.file, "output", "o", "", "also write a report to this file, for ipam release")
	return c
}

func (t *Tool) runCheckIPAM(ctx context.Context, o checkOptions) error {
	s, err := t.surveyor()
	if err != nil {
		return err
	}
	fmt.Fprintln(t.Out, "Checking IPAM for inconsistencies...")
	v, err := s.all(ctx)
	if err != nil {
		return err
	}
	findings := v.Check()
	if len(findings) > 0 {
		if findings, err = s.again(ctx, findings); err != nil {
			return err
		}
	}
	fmt.Fprintf(t.Out, "Found %d pools, %d blocks, %d assigned addresses, %d handles, %d nodes, %d pod addresses.\n",
		len(v.Pools), len(v.Blocks), len(v.Taken), len(v.Handles), len(v.Nodes), len(v.Pods))
	if o.allIPs {
		for _, a := range v.Taken {
			fmt.Fprintf(t.Out, "  %s %s/%s %s\n", a.Addr, a.Namespace, a.Pod, a.Handle)
		}
	}
	if o.problemIPs {
		for _, f := range findings {
			fmt.Fprintf(t.Out, "%s: %s\n", f.Class, f.Text)
		}
	}
	fmt.Fprintf(t.Out, "Check complete; found %d problems.\n", len(findings))
	if o.file != "" {
		if err := t.writeReport(ctx, s, o.file, findings); err != nil {
			return err
		}
	}
	if len(findings) > 0 {
		return &FindingsError{fmt.Sprintf("ipam check: %d problems", len(findings))}
	}
	return nil
}

// again surveys a second time and keeps what was found both times.
func (s *surveyor) again(ctx context.Context, first []ipamview.Finding) ([]ipamview.Finding, error) {
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	v, err := s.all(ctx)
	if err != nil {
		return nil, err
	}
	type key struct{ class, object string }
	before := make(map[key]bool, len(first))
	for _, f := range first {
		before[key{f.Class, f.Object}] = true
	}
	return slices.DeleteFunc(v.Check(), func(f ipamview.Finding) bool { return !before[key{f.Class, f.Object}] }), nil
}

func (t *Tool) writeReport(ctx context.Context, s *surveyor, path string, findings []ipamview.Finding) error {
	guid, err := s.guid(ctx)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return &api.UsageError{Err: err}
	}
	return errors.Join(writeJSON(f, report{Version: t.Version, ClusterGUID: guid, Findings: findings}), f.Close())
}

// guid tells clusters apart; empty when the cluster has none.
func (s *surveyor) guid(ctx context.Context) (string, error) {
	o, err := s.client.Get(ctx, kind.MustFind("clusterinfo"), "default")
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	return kind.Text(o, "spec.clusterGUID", ""), err
}

func (t *Tool) ipamConfigure() *cobra.Command {
	var strict, persist string
	var blocks, cooldown int
	c := &cobra.Command{
		Use:     "configure",
		Short:   "Change the settings of IPAM",
		Example: "  muslinctl ipam configure --strictaffinity=true --max-blocks-per-host=8\n  muslinctl ipam configure --ip-cooldown-seconds=30",
		Args:    usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			spec := api.Object{}
			if c.Flags().Changed("strictaffinity") {
				if strict != "true" && strict != "false" {
					return api.Usagef("--strictaffinity: want true or false, not %q", strict)
				}
				spec["strictAffinity"] = strict == "true"
			}
			for flag, v := range map[string]*int{"max-blocks-per-host": &blocks, "ip-cooldown-seconds": &cooldown} {
				if c.Flags().Changed(flag) {
					spec[map[string]string{"max-blocks-per-host": "maxBlocksPerHost", "ip-cooldown-seconds": "ipCooldownSeconds"}[flag]] = int64(*v)
				}
			}
			if c.Flags().Changed("kubevirt-ip-persistence") {
				spec["kubeVirtVMAddressPersistence"] = persist
			}
			if len(spec) == 0 {
				return api.Usagef("what? Give at least one setting; see %s --help", c.CommandPath())
			}
			return t.configure(c.Context(), spec)
		},
	}
	f := c.Flags()
	f.StringVar(&strict, "strictaffinity", "", "true: no node takes an address out of another node's block")
	f.IntVar(&blocks, "max-blocks-per-host", 0, "blocks a node may have; 0: 20; more than 0 needs strictaffinity in Calico")
	f.IntVar(&cooldown, "ip-cooldown-seconds", 0, "how long a released address rests, 0 to 1200")
	f.StringVar(&persist, "kubevirt-ip-persistence", "", "Enabled or Disabled")
	return c
}

func (t *Tool) configure(ctx context.Context, spec api.Object) error {
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	k := kind.MustFind("ipamconfig")
	_, err = client.Patch(ctx, k, "default", types.MergePatchType, api.Object{"spec": spec}, false)
	if apierrors.IsNotFound(err) {
		full := merged(api.Object{"strictAffinity": false, "autoAllocateBlocks": true, "maxBlocksPerHost": int64(0)}, spec)
		_, err = client.Create(ctx, k, api.Object{"apiVersion": kind.GroupVersion, "kind": k.Name, "metadata": api.Object{"name": "default"}, "spec": full}, false)
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(t.Out, "Successfully changed the settings of IPAM")
	return nil
}
