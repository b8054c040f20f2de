package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"

	"github.com/muslin-net/muslin/cmd/controller/app"
	"github.com/muslin-net/muslin/pkg/metricsserver"
	"github.com/muslin-net/muslin/pkg/model"
)

// settings are what the environment says.
type settings struct {
	kubeconfig, identity, http string
	level                      slog.Level
	defaults                   app.Defaults
	metrics                    metricsserver.Settings
	relay                      string // host:port of the policy relay; empty: none
}

func readSettings(getenv func(string) string) (settings, error) {
	s := settings{kubeconfig: getenv("KUBECONFIG"), identity: getenv("POD_NAME"), http: getenv("MUSLIN_HTTP_ADDR")}
	var errs []error
	if s.identity == "" {
		host, err := os.Hostname()
		if err != nil {
			errs = append(errs, fmt.Errorf("POD_NAME is not set, and no host name: %w", err))
		}
		s.identity = host
	}
	if s.http == "" {
		s.http = "127.0.0.1:9110"
	}
	if text := getenv("MUSLIN_LOG_LEVEL"); text != "" {
		if err := s.level.UnmarshalText([]byte(text)); err != nil {
			errs = append(errs, fmt.Errorf("MUSLIN_LOG_LEVEL: %q is not one of debug, info, warn, error", text))
		}
	}
	if s.relay = getenv("MUSLIN_RELAY_ADDR"); s.relay != "" {
		if host, _, err := net.SplitHostPort(s.relay); err != nil || host == "" {
			errs = append(errs, fmt.Errorf("MUSLIN_RELAY_ADDR: %q is not the host:port that agents are to call", s.relay))
		}
	}
	var err error
	if s.metrics, err = metricsserver.Read(getenv); err != nil {
		errs = append(errs, err)
	}
	s.defaults.IPv4Pool = readPool(getenv, "MUSLIN_IPV4POOL_CIDR", model.IPv4, &errs)
	s.defaults.IPv6Pool = readPool(getenv, "MUSLIN_IPV6POOL_CIDR", model.IPv6, &errs)
	return s, errors.Join(errs...)
}

func readPool(getenv func(string) string, name string, family model.Family, errs *[]error) netip.Prefix {
	text := getenv(name)
	if text == "" {
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || !family.Has(p.Addr()) || p != p.Masked() {
		*errs = append(*errs, fmt.Errorf("%s: %q is not a CIDR of its family without bits beyond the prefix length", name, text))
		return netip.Prefix{}
	}
	return p
}
