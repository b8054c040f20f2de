package policyrelay

import (
	"testing"
	"time"
)

func TestAgeOfAMoment(t *testing.T) {
	stored := moment{1_800_000_000, "one", time.Hour}
	for name, c := range map[string]struct {
		now  moment
		want time.Duration
	}{
		"the same boot":                      {moment{1_800_000_060, "one", time.Hour + time.Minute}, time.Minute},
		"the clock was put forward":          {moment{1_800_003_660, "one", time.Hour + time.Minute}, time.Minute},
		"the clock was put back":             {moment{1_799_996_460, "one", time.Hour + time.Minute}, time.Minute},
		"put back, and long ago":             {moment{1_800_000_060, "one", 3 * time.Hour}, 2 * time.Hour},
		"another boot":                       {moment{1_800_000_060, "two", time.Second}, time.Minute},
		"another boot with a clock behind":   {moment{1_799_996_400, "two", time.Second}, 0},
		"no kernel says which boot it is of": {moment{1_800_000_060, "", 0}, time.Minute},
	} {
		if got := stored.age(c.now); got != c.want {
			t.Errorf("%s: %s; want %s", name, got, c.want)
		}
	}
	if m := newMoment(); m.boot == "" || m.since <= 0 {
		t.Errorf("now is %+v", m)
	}
}

// A replica that ended without a word, and whose clock was an hour ahead, is older than
// one that began later.
func TestReplicaBeganLater(t *testing.T) {
	now := time.Now()
	have := map[string]Replica{"dead": {Since: now.Add(time.Hour)}, "live": {Since: now.Add(-time.Hour)}}
	if got := since(now, have); !got.After(have["dead"].Since) {
		t.Errorf("the new one is of %s, the dead one of %s", got, have["dead"].Since)
	}
	if got := since(now, nil); !got.Equal(now) {
		t.Errorf("the first one is of %s", got)
	}
}
