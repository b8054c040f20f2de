package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/ipamview"
	"github.com/muslin-net/muslin/ipam"
)

type releaseOptions struct {
	ips     []string
	reports []string
	force   bool
}

func (t *Tool) ipamRelease() *cobra.Command {
	var o releaseOptions
	c := &cobra.Command{
		Use:   "release (--ip IP | --from-report FILE)",
		Short: "Release addresses that nobody uses",
		Long: `Release addresses that nobody uses. An address that a pod has is kept unless
--force is given. Reports of ipam check are read; with several of them only what
all of them hold is released, and only while it is as it was then.`,
		Example: "  muslinctl ipam release --ip 10.244.1.17\n  muslinctl ipam release --from-report one.json --from-report two.json",
		Args:    usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if (len(o.ips) == 0) == (len(o.reports) == 0) {
				return api.Usagef("want --ip or --from-report")
			}
			return t.runRelease(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringArrayVar(&o.ips, "ip", nil, "an address; may be given several times")
	f.StringArrayVar(&o.reports, "from-report", nil, "a report of ipam check; may be given several times")
	f.BoolVar(&o.force, "force", false, "release an address that a pod or a Service has, too")
	return c
}

func (t *Tool) runRelease(ctx context.Context, o releaseOptions) error {
	s, err := t.surveyor()
	if err != nil {
		return err
	}
	now := &ipamview.Survey{Pods: map[netip.Addr]ipamview.Pod{}, Services: map[netip.Addr]string{}}
	if err := errors.Join(s.pods(ctx, now), s.services(ctx, now)); err != nil {
		return err
	}
	list, err := t.releases(ctx, s, o)
	if err != nil {
		return err
	}
	done := 0
	var failed []error
	for _, r := range list {
		if p, used := now.Pods[r.Addr]; used && !o.force {
			failed = append(failed, fmt.Errorf("%s is used by pod %s/%s; --force releases it all the same", r.Addr, p.Namespace, p.Name))
			continue
		}
		if service := now.Services[r.Addr]; service != "" && !o.force {
			failed = append(failed, fmt.Errorf("%s is in the status of Service %s; --force releases it all the same", r.Addr, service))
			continue
		}
		freed, err := s.release(ctx, r)
		switch {
		case err != nil:
			failed = append(failed, fmt.Errorf("release %s: %w", r.Addr, err))
		case freed:
			done++
			fmt.Fprintf(t.Out, "Released %s\n", r.Addr)
		default:
			fmt.Fprintf(t.Out, "%s is not assigned\n", r.Addr)
		}
	}
	if len(o.reports) > 0 {
		failed = append(failed, t.dropHandles(ctx, s, o.reports))
	}
	failed = slices.DeleteFunc(failed, func(err error) bool { return err == nil })
	fmt.Fprintf(t.Out, "Successfully released %d out of %d address(es)\n", done, len(list))
	if len(failed) > 0 && done > 0 {
		return &PartlyError{failed}
	}
	return errors.Join(failed...)
}

func (t *Tool) releases(ctx context.Context, s *surveyor, o releaseOptions) ([]ipam.Release, error) {
	var out []ipam.Release
	for _, text := range o.ips {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, api.Usagef("--ip: %w", err)
		}
		out = append(out, ipam.Release{Addr: a})
	}
	if len(o.reports) == 0 {
		return out, nil
	}
	guid, err := s.guid(ctx)
	if err != nil {
		return nil, err
	}
	seen := map[ipamview.Taken]int{}
	for _, path := range o.reports {
		r, err := readReport(path)
		if err != nil {
			return nil, err
		}
		if r.ClusterGUID != guid {
			return nil, api.Usagef("%s: the report is of cluster %q, this one is %q", path, r.ClusterGUID, guid)
		}
		for _, f := range r.Findings {
			if f.Class == ipamview.Leaked && f.Taken != nil {
				seen[*f.Taken]++
			}
		}
	}
	for taken, n := range seen {
		if n == len(o.reports) {
			seq := taken.Sequence
			out = append(out, ipam.Release{Addr: taken.Addr, Handle: taken.Handle, Sequence: &seq})
		}
	}
	return out, nil
}

// dropHandles deletes the handles that every report found without an address and
// that have none now.
func (t *Tool) dropHandles(ctx context.Context, s *surveyor, reports []string) error {
	seen := map[string]int{}
	for _, path := range reports {
		r, err := readReport(path)
		if err != nil {
			return err
		}
		for _, f := range r.Findings {
			if f.Class == ipamview.LeakedHand {
				seen[strings.TrimPrefix(f.Object, "handle ")]++
			}
		}
	}
	var errs []error
	for _, name := range sortedKeys(seen) {
		if seen[name] < len(reports) {
			continue
		}
		gone, err := s.dropHandle(ctx, name)
		errs = append(errs, err)
		if gone {
			fmt.Fprintf(t.Out, "Deleted handle %s\n", name)
		}
	}
	return errors.Join(errs...)
}

// dropHandle deletes a handle unless a block that it names has an address of it.
func (s *surveyor) dropHandle(ctx context.Context, name string) (bool, error) {
	h, rev, err := s.store.Handles().Get(ctx, name)
	if errors.Is(err, ipam.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for cidr := range h.Blocks {
		b, _, err := s.store.Blocks().Get(ctx, cidr)
		switch {
		case errors.Is(err, ipam.ErrNotFound):
		case err != nil:
			return false, err
		case len(b.AddrsOf(h.ID)) > 0:
			return false, nil
		}
	}
	err = s.store.Handles().Delete(ctx, h, rev)
	return err == nil, err
}

func readReport(path string) (report, error) {
	var r report
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return r, api.Usagef("%s: not a report of ipam check: %w", path, err)
	}
	return r, nil
}

// release takes an address from its owner: the block first, then the handle, so
// that after a crash between the two a second release still finds the rest.
func (s *surveyor) release(ctx context.Context, r ipam.Release) (bool, error) {
	for try := 0; ; try++ {
		b, rev, err := s.blockOf(ctx, r.Addr)
		if err != nil || b == nil {
			return false, err
		}
		owner, ok := b.Owner(r.Addr)
		if !ok {
			return false, nil
		}
		next := b.Clone()
		if _, err := next.Release([]ipam.Release{r}, time.Now(), 0); err != nil {
			return false, err
		}
		next.Bump()
		_, err = s.store.Blocks().Update(ctx, next, rev)
		if errors.Is(err, ipam.ErrConflict) && try < 10 {
			continue
		}
		if err != nil {
			return false, err
		}
		return true, s.lower(ctx, owner.Handle, b.CIDR())
	}
}

// lower counts one address less in a handle, and deletes an empty one.
func (s *surveyor) lower(ctx context.Context, id string, block netip.Prefix) error {
	for try := 0; ; try++ {
		h, rev, err := s.store.Handles().Get(ctx, id)
		if id == "" || errors.Is(err, ipam.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		next := ipam.Handle{ID: h.ID, Blocks: map[netip.Prefix]int{}}
		for p, n := range h.Blocks {
			if p == block {
				n--
			}
			if n > 0 {
				next.Blocks[p] = n
			}
		}
		if len(next.Blocks) == 0 {
			err = s.store.Handles().Delete(ctx, h, rev)
		} else {
			_, err = s.store.Handles().Update(ctx, next, rev)
		}
		if !errors.Is(err, ipam.ErrConflict) || try == 10 {
			return err
		}
	}
}
