package bgp

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
)

func peer(state string, flaps int) model.PeerStatus {
	return model.PeerStatus{Address: netip.MustParseAddr("192.0.2.9"), ASN: 65101, State: model.SessionState(state), Flaps: flaps, LastError: "hold timer expired"}
}

func TestSessionChanges(t *testing.T) {
	now := time.Unix(1000, 0)
	words := func(changes []SessionChange) (out []string) {
		for _, c := range changes {
			word := "back"
			if c.Lost {
				word = "lost"
			}
			out = append(out, word)
		}
		return out
	}
	w := SessionWatch{}
	for i, step := range []struct {
		peers []model.PeerStatus
		want  []string
	}{
		{[]model.PeerStatus{peer("Active", 0)}, nil},
		{[]model.PeerStatus{peer("Established", 0)}, nil}, // the first time is no event
		{[]model.PeerStatus{peer("Established", 0)}, nil},
		{[]model.PeerStatus{peer("Idle", 1)}, []string{"lost"}},
		{[]model.PeerStatus{peer("Active", 1)}, nil},
		{[]model.PeerStatus{peer("Established", 1)}, []string{"back"}},
		{[]model.PeerStatus{peer("Established", 2)}, []string{"lost", "back"}}, // between two looks
		{nil, nil},
		{[]model.PeerStatus{peer("Established", 0)}, nil}, // configured anew
	} {
		if got := words(w.Changes(step.peers, now)); !slices.Equal(got, step.want) {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}

func TestFlappingSessionIsToldSparingly(t *testing.T) {
	now := time.Unix(1000, 0)
	w := SessionWatch{}
	w.Changes([]model.PeerStatus{peer("Established", 0)}, now)
	reported, unreported := 0, 0
	for i := range 600 { // ten minutes of it, every second
		now = now.Add(time.Second)
		state := "Established"
		if i%2 == 0 {
			state = "Idle"
		}
		for _, c := range w.Changes([]model.PeerStatus{peer(state, 1+i/2)}, now) {
			reported++
			unreported += c.Unreported
			if c.Unreported > 0 && !strings.Contains(c.Text("n1"), "not told") {
				t.Errorf("text: %s", c.Text("n1"))
			}
		}
	}
	if reported+unreported != 600 {
		t.Errorf("%d told and %d counted, of 600 changes", reported, unreported)
	}
	if most := sessionBurst + 10; reported > most || reported < sessionBurst {
		t.Errorf("%d events, want %d to %d", reported, sessionBurst, most)
	}
	c := w.Changes([]model.PeerStatus{peer("Idle", 1000)}, now.Add(time.Hour))
	if len(c) != 1 {
		t.Fatalf("after the flapping: %+v", c)
	}
	if text := c[0].Text("n1"); !strings.Contains(text, "session of n1 with 192.0.2.9 (AS 65101) is lost: hold timer expired") {
		t.Errorf("text: %s", text)
	}
}
