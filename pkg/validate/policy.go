package validate

import (
	"slices"
	"strconv"

	"github.com/muslin-net/muslin/pkg/model"
)

// ReasonTierNotFound is that of a policy whose tier does not exist.
const ReasonTierNotFound = "TierNotFound"

// Policies finds what is wrong between policies and tiers, in the order of the
// view.
func Policies(v model.PolicyView) []model.Problem {
	var out []model.Problem
	for p := range v.Policies.All() {
		if model.BuiltinTier(p.Tier) || slices.ContainsFunc(v.Tiers, func(t model.Tier) bool { return t.Name == p.Tier }) {
			continue
		}
		out = append(out, model.Problem{
			Object: p.Object, Field: "spec.tier", Reason: ReasonTierNotFound,
			Message: "tier " + strconv.Quote(p.Tier) + " does not exist: the policy is looked at after all others, and what none of its tier allows is dropped",
		})
	}
	return out
}
