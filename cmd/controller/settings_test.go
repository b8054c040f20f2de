package main

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/cmd/controller/app"
	"github.com/muslin-net/muslin/pkg/metricsserver"
)

func TestSettings(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want settings
		err  []string
	}{
		"what is not set": {map[string]string{"POD_NAME": "p"}, settings{identity: "p", http: "127.0.0.1:9110"}, nil},
		"everything": {
			map[string]string{"POD_NAME": "p", "KUBECONFIG": "k", "MUSLIN_HTTP_ADDR": "127.0.0.1:1", "MUSLIN_LOG_LEVEL": "debug", "MUSLIN_IPV4POOL_CIDR": "10.0.0.0/8", "MUSLIN_IPV6POOL_CIDR": "fd00::/48"},
			settings{identity: "p", kubeconfig: "k", http: "127.0.0.1:1", level: slog.LevelDebug, defaults: app.Defaults{IPv4Pool: netip.MustParsePrefix("10.0.0.0/8"), IPv6Pool: netip.MustParsePrefix("fd00::/48")}}, nil,
		},
		"metrics for others": {
			map[string]string{"POD_NAME": "p", "MUSLIN_METRICS_ADDR": ":9112", "MUSLIN_METRICS_TLS": "true"},
			settings{identity: "p", http: "127.0.0.1:9110", metrics: metricsserver.Settings{Addr: ":9112", TLS: true}}, nil,
		},
		"a policy relay": {
			map[string]string{"POD_NAME": "p", "MUSLIN_RELAY_ADDR": "[10.0.0.1]:5473"},
			settings{identity: "p", http: "127.0.0.1:9110", relay: "[10.0.0.1]:5473"}, nil,
		},
		"all wrong": {
			map[string]string{"POD_NAME": "p", "MUSLIN_METRICS_TLS": "perhaps", "MUSLIN_RELAY_ADDR": ":5473", "MUSLIN_LOG_LEVEL": "loud", "MUSLIN_IPV4POOL_CIDR": "fd00::/48", "MUSLIN_IPV6POOL_CIDR": "fd00::1/48"},
			settings{}, []string{`MUSLIN_METRICS_TLS: "perhaps"`, `MUSLIN_RELAY_ADDR: ":5473"`, `MUSLIN_LOG_LEVEL: "loud"`, `MUSLIN_IPV4POOL_CIDR: "fd00::/48"`, `MUSLIN_IPV6POOL_CIDR: "fd00::1/48"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readSettings(func(k string) string { return c.env[k] })
			if c.err == nil {
				if err != nil || got != c.want {
					t.Errorf("got %+v %v, want %+v", got, err, c.want)
				}
				return
			}
			for _, want := range c.err {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want it to name %s", err, want)
				}
			}
		})
	}
}
