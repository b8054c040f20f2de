package metricsserver

import (
	"errors"
	"fmt"
	"net"
	"strconv"
)

// Settings say where metrics are served, and to whom.
type Settings struct {
	Addr string // host:port or :port; empty: nowhere
	// TLS has the server make itself a certificate, if no files are named.
	TLS               bool
	CertFile, KeyFile string // PEM; both or neither; they imply TLS
	Authorization     bool   // ask the API server about bearer tokens; with TLS only
}

// Read reads the environment:
//
//	MUSLIN_METRICS_ADDR           where metrics are served, as :9111; nowhere when empty
//	MUSLIN_METRICS_TLS            true: over TLS, by a certificate made at start
//	MUSLIN_METRICS_CERT_FILE      over TLS, by this certificate, PEM
//	MUSLIN_METRICS_KEY_FILE       and its key
//	MUSLIN_METRICS_AUTHORIZATION  true: to whom the API server lets get /metrics
//
// An error names each variable that cannot be read, and what does not go together.
func Read(getenv func(string) string) (Settings, error) {
	s := Settings{Addr: getenv("MUSLIN_METRICS_ADDR"), CertFile: getenv("MUSLIN_METRICS_CERT_FILE"), KeyFile: getenv("MUSLIN_METRICS_KEY_FILE")}
	var errs []error
	yes := func(name string) bool {
		text := getenv(name)
		is, err := strconv.ParseBool(text)
		if err != nil && text != "" {
			errs = append(errs, fmt.Errorf("%s: %q is neither true nor false", name, text))
		}
		return is
	}
	s.TLS, s.Authorization = yes("MUSLIN_METRICS_TLS"), yes("MUSLIN_METRICS_AUTHORIZATION")
	if s.Addr != "" {
		if _, _, err := net.SplitHostPort(s.Addr); err != nil {
			errs = append(errs, fmt.Errorf("MUSLIN_METRICS_ADDR: %q is no host:port, nor :port", s.Addr))
		}
	}
	if (s.CertFile == "") != (s.KeyFile == "") {
		errs = append(errs, errors.New("MUSLIN_METRICS_CERT_FILE and MUSLIN_METRICS_KEY_FILE: one is of no use without the other"))
	}
	s.TLS = s.TLS || s.CertFile != ""
	if s.Authorization && !s.TLS {
		errs = append(errs, errors.New("MUSLIN_METRICS_AUTHORIZATION: needs MUSLIN_METRICS_TLS or a certificate: anybody on the way could read the tokens"))
	}
	return s, errors.Join(errs...)
}
