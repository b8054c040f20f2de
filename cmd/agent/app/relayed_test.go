package app

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/felix/policyrelay"
	"github.com/muslin-net/muslin/pkg/task"
)

// A relay that is away is a problem after a while, and the loop looks again by then; one
// that is back is none.
func TestRelayAwayIsAProblem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relayed{node: "n1", problems: &problemList{log: slog.New(slog.DiscardHandler)}}
		v := policyrelay.View{Lost: time.Now(), Err: errors.New("refused")}
		var next task.Next
		if r.report(v, &next); len(r.problems.get()) > 0 || next.After != relayPatience {
			t.Errorf("at once: %v, looks again after %s", r.problems.get(), next.After)
		}
		time.Sleep(relayPatience)
		r.report(v, &next)
		if got := r.problems.get(); len(got) != 1 || got[0].Reason != "NoPolicyRelay" || !strings.Contains(got[0].Message, v.Lost.UTC().Format(time.RFC3339)) {
			t.Errorf("after %s: %v", relayPatience, got)
		}
		r.report(policyrelay.View{}, &next)
		if got := r.problems.get(); len(got) > 0 {
			t.Errorf("back: %v", got)
		}
		r.report(policyrelay.View{Refused: []policy.Need{{Selector: "a ="}}}, &next)
		if got := r.problems.get(); len(got) != 1 || got[0].Reason != "PolicyRelayRefuses" || !strings.Contains(got[0].Message, `"a ="`) {
			t.Errorf("refused: %v", got)
		}
	})
}

// Without a relay all pods are known; before one has answered none are.
func TestNoRelayIsAllPods(t *testing.T) {
	var in policy.Input
	var next task.Next
	(&relayed{}).fill(&in, &next)
	if in.Known != nil || len(next.Changed) > 0 {
		t.Errorf("without: %+v", in)
	}
	r := relayed{client: &policyrelay.Client{}, problems: &problemList{log: slog.New(slog.DiscardHandler)}}
	if r.fill(&in, &next); in.Known == nil || len(in.Known) > 0 || len(next.Changed) != 1 {
		t.Errorf("before an answer: %+v", in)
	}
}
