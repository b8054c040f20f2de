package gobgp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/osrg/gobgp/v4/api"
	"google.golang.org/protobuf/proto"

	"github.com/muslin-net/muslin/bgp"
)

// chains are the policies as GoBGP takes them. It has one chain of policies a
// direction for all peers, so each rule carries the set of peers it is for.
//
// New chains are put beside those in force, under names of their own, and take
// their place in one step a direction; then the old ones go. (SetPolicies
// would do as much in one call, and turns a next hop's prefix into one
// address.)
type chains struct {
	sets     []*api.DefinedSet
	policies []*api.Policy // import, export
}

// suffix ends the names of the chains of an issue.
func suffix(issue int) string { return "#" + strconv.Itoa(issue) }

func (c *chains) equal(o *chains) bool {
	return o != nil &&
		slices.EqualFunc(c.sets, o.sets, func(x, y *api.DefinedSet) bool { return proto.Equal(x, y) }) &&
		slices.EqualFunc(c.policies, o.policies, func(x, y *api.Policy) bool { return proto.Equal(x, y) })
}

// setPolicies puts the policies of cfg in force for routes from now on; what
// was heard and said before is refresh's business.
func (s *server) setPolicies(ctx context.Context, cfg bgp.Config) error {
	if compilePolicies(cfg, suffix(s.issue)).equal(s.chains) {
		s.policies = byID(cfg.Policies)
		return nil
	}
	s.issue++
	next := compilePolicies(cfg, suffix(s.issue))
	if err := s.putInForce(ctx, next); err != nil {
		_ = s.dropChains(ctx, next) // as far as they came
		return err
	}
	old := s.chains
	s.chains, s.policies = next, byID(cfg.Policies)
	if old == nil {
		return nil
	}
	return s.dropChains(ctx, old)
}

func (s *server) putInForce(ctx context.Context, c *chains) error {
	for _, set := range c.sets {
		if err := s.bgp.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: set}); err != nil {
			return fmt.Errorf("add set %s of bgp policies: %w", set.Name, err)
		}
	}
	for _, p := range c.policies {
		if err := s.bgp.AddPolicy(ctx, &api.AddPolicyRequest{Policy: p}); err != nil {
			return fmt.Errorf("add bgp policy %s: %w", p.Name, err)
		}
	}
	for i, a := range []*api.PolicyAssignment{
		{Direction: api.PolicyDirection_POLICY_DIRECTION_IMPORT, DefaultAction: api.RouteAction_ROUTE_ACTION_ACCEPT},
		{Direction: api.PolicyDirection_POLICY_DIRECTION_EXPORT, DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT},
	} {
		a.Policies = []*api.Policy{{Name: c.policies[i].Name}}
		if err := s.bgp.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: a}); err != nil {
			return fmt.Errorf("assign bgp policy %s: %w", c.policies[i].Name, err)
		}
	}
	return nil
}

// dropChains removes what is no longer in force.
func (s *server) dropChains(ctx context.Context, c *chains) error {
	var errs []error
	for _, p := range c.policies {
		if err := s.bgp.DeletePolicy(ctx, &api.DeletePolicyRequest{Policy: p, All: true}); err != nil {
			errs = append(errs, fmt.Errorf("delete bgp policy %s: %w", p.Name, err))
		}
	}
	for _, set := range c.sets {
		if err := s.bgp.DeleteDefinedSet(ctx, &api.DeleteDefinedSetRequest{DefinedSet: set, All: true}); err != nil {
			errs = append(errs, fmt.Errorf("delete set %s of bgp policies: %w", set.Name, err))
		}
	}
	return errors.Join(errs...)
}
