package bgp

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
)

// Every field of a rule but its origin makes another policy of it, also one that
// is added later.
func TestSamePoliciesLooksAtEveryField(t *testing.T) {
	policyOf := func(r Rule) Policy { return Policy{Rules: []Rule{r}} }
	rule := func() Rule {
		return Rule{From: "here", Match: Match{LocalPref: new(uint32)}, Set: Set{LocalPref: new(uint32)}}
	}
	other := rule()
	other.From = "there"
	if !SamePolicies(policyOf(rule()), policyOf(other)) {
		t.Error("a rule from elsewhere is another one")
	}
	var walk func(name string, at func(*Rule) reflect.Value)
	walk = func(name string, at func(*Rule) reflect.Value) {
		changed := rule()
		switch v := at(&changed); v.Kind() {
		case reflect.Struct:
			if v.Type() == reflect.TypeFor[netip.Addr]() {
				v.Set(reflect.ValueOf(netip.MustParseAddr("10.0.0.1")))
				break
			}
			for i := range v.NumField() {
				walk(name+"."+v.Type().Field(i).Name, func(r *Rule) reflect.Value { return at(r).Field(i) })
			}
			return
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		case reflect.Pointer:
			v.SetZero()
		case reflect.String:
			v.SetString("x")
		case reflect.Bool:
			v.SetBool(true)
		default:
			v.Set(reflect.ValueOf(1).Convert(v.Type()))
		}
		if name != "Rule.From" && SamePolicies(policyOf(rule()), policyOf(changed)) {
			t.Errorf("%s makes no difference", name)
		}
	}
	walk("Rule", func(r *Rule) reflect.Value { return reflect.ValueOf(r).Elem() })
	for _, p := range []Policy{{External: true}, {LocalASN: model.ASN(1)}} {
		if SamePolicies(Policy{}, p) {
			t.Errorf("%+v is like a policy for other peers", p)
		}
	}
}
