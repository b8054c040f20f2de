package main

import (
	"slices"
	"strings"
	"testing"
)

// The plugin's configuration names the spool when the state is elsewhere.
func TestState(t *testing.T) {
	for state, spool := range map[string]string{"": "", "/data/muslin": "/data/muslin/cni-spool"} {
		t.Setenv("MUSLIN_STATE", state)
		if cfg, err := config(); err != nil || cfg.Spool != spool {
			t.Errorf("MUSLIN_STATE=%s: spool %q, %v; want %q", state, cfg.Spool, err, spool)
		}
	}
	t.Setenv("MUSLIN_STATE", "data")
	if _, err := config(); err == nil || !strings.Contains(err.Error(), "MUSLIN_STATE") {
		t.Errorf("a relative path: %v", err)
	}
}

// Capabilities that are left out are named by commas, spaces or both.
func TestWithoutCapabilities(t *testing.T) {
	for text, want := range map[string][]string{"": nil, "NET_RAW": {"NET_RAW"}, "net_raw, CAP_NET_BIND_SERVICE,,": {"net_raw", "CAP_NET_BIND_SERVICE"}} {
		t.Setenv("MUSLIN_WITHOUT_CAPABILITIES", text)
		if cfg, err := config(); err != nil || !slices.Equal(cfg.WithoutCapabilities, want) {
			t.Errorf("%q: %q, %v; want %q", text, cfg.WithoutCapabilities, err, want)
		}
	}
}
