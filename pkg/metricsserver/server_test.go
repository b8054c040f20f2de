package metricsserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// running is a server on a port of its own.
type running struct {
	t    *testing.T
	url  string
	http *http.Client
	log  *bytes.Buffer
	*Server
}

// run serves one metric by these settings until the test ends.
func run(t *testing.T, s Settings, api *rest.Config) *running {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "planted", Help: "For the test."}))
	r := &running{t: t, log: &bytes.Buffer{}}
	s.Addr = "127.0.0.1:0"
	var err error
	if r.Server, err = New(s, reg, api, slog.New(slog.NewTextHandler(r.log, nil)), func(error) {}); err != nil {
		t.Fatal(err)
	}
	l, err := r.listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-done })
	scheme := "http://"
	if s.TLS {
		scheme = "https://"
	}
	r.url = scheme + l.Addr().String()
	r.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	return r
}

// get asks for a path with a header Authorization, if one is given.
func (r *running) get(path, authorization string) (code int, body string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// Metrics are all that there is.
func TestServesMetricsAlone(t *testing.T) {
	r := run(t, Settings{}, nil)
	if code, body := r.get("/metrics", ""); code != http.StatusOK || !strings.Contains(body, "planted 0") {
		t.Errorf("%d %s", code, body)
	}
	for _, path := range []string{"/", "/status", "/show", "/healthz", "/debug/pprof/", "/metrics/"} {
		if code, _ := r.get(path, ""); code != http.StatusNotFound {
			t.Errorf("%s: %d", path, code)
		}
	}
}

// Tokens are reviewed by a real API server with the rights that the component
// monitoring gives an agent: 401 without one that is known, 403 for whom RBAC does
// not let get /metrics, and nobody new is let in while it is away.
func TestAuthorization(t *testing.T) {
	server := kubetest.Start(t)
	r := run(t, Settings{TLS: true, Authorization: true}, server.ConfigAs("system:serviceaccount:muslin-system:muslin-agent"))
	if code, _ := r.get("/metrics", "Bearer made-up"); code != http.StatusServiceUnavailable || !strings.Contains(r.log.String(), "tokenreviews") {
		t.Errorf("without the right to ask: %d; log: %s", code, r.log)
	}
	server.MustKubectl(t, "", "create", "namespace", "muslin-system")
	server.MustKubectl(t, "", "apply", "-f", kubetest.Root()+"/manifests/components/monitoring/rbac.yaml")
	for _, name := range []string{"scraper", "second", "stranger"} {
		server.MustKubectl(t, "", "create", "serviceaccount", name)
	}
	for _, name := range []string{"scraper", "second"} {
		server.MustKubectl(t, "", "create", "clusterrolebinding", name, "--clusterrole=muslin-metrics-reader", "--serviceaccount=default:"+name)
	}
	token := func(name string) string {
		return "Bearer " + strings.TrimSpace(server.MustKubectl(t, "", "create", "token", name))
	}
	scraper, second, unknown := token("scraper"), token("second"), token("stranger")
	for code := 0; code != http.StatusUnauthorized && t.Context().Err() == nil; { // until the API server knows of the rights
		code, _ = r.get("/metrics", "Bearer made-up")
	}
	want := func(what, authorization string, code int) {
		t.Helper()
		got, body := r.get("/metrics", authorization)
		if got != code || strings.Contains(body, "planted") != (code == http.StatusOK) {
			t.Errorf("%s: %d %s, want %d; log: %s", what, got, body, code, r.log)
		}
	}
	want("no token", "", http.StatusUnauthorized)
	want("another scheme", "Basic YTpi", http.StatusUnauthorized)
	want("no token after the scheme", "Bearer ", http.StatusUnauthorized)
	want("an unknown token", "Bearer made-up", http.StatusUnauthorized)
	want("a token changed", scraper+"x", http.StatusUnauthorized)
	want("one without the right", unknown, http.StatusForbidden)
	want("one with the right", scraper, http.StatusOK)
	want("scheme in small letters", strings.Replace(scraper, "Bearer", "bearer", 1), http.StatusOK)

	server.Kill()
	want("API server away, known a moment ago", scraper, http.StatusOK)
	want("API server away, not known", second, http.StatusServiceUnavailable)
	g := mustGate(t, server.ConfigAs("system:serviceaccount:muslin-system:muslin-agent"))
	g.known = map[[32]byte]verdict{sha256.Sum256([]byte(strings.TrimPrefix(scraper, "Bearer "))): {http.StatusOK, time.Now().Add(rememberFor)}}
	if code := g.evaluate(t.Context(), strings.TrimPrefix(scraper, "Bearer "), time.Now().Add(rememberFor+time.Second)); code != http.StatusServiceUnavailable {
		t.Errorf("API server away, known a minute ago: %d", code)
	}
	server.Restart(t)
	want("API server back", second, http.StatusOK)
	if n := strings.Count(r.log.String(), "what=\"token review\""); n != 4 { // without the right, with it, away, back
		t.Errorf("the log has %d lines of the review, want one of each change:\n%s", n, r.log)
	}
}

// What is remembered is bounded.
func TestGuessingCostsNoMemory(t *testing.T) {
	g := mustGate(t, &rest.Config{Host: "https://127.0.0.1:1"})
	for i := range rememberMost {
		g.known[[32]byte{byte(i), byte(i >> 8)}] = verdict{}
	}
	g.remember([32]byte{31: 1}, http.StatusUnauthorized, time.Now())
	if len(g.known) != 1 {
		t.Errorf("%d tokens are remembered", len(g.known))
	}
}

func mustGate(t *testing.T, cfg *rest.Config) *gate {
	t.Helper()
	g, err := newGate(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// A certificate that is replaced is served with the next connection; a broken one
// is not, and the log says so once.
func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	s := Settings{TLS: true, CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	if _, err := (&files{cert: s.CertFile, key: s.KeyFile, broken: complaint{log: slog.New(slog.DiscardHandler)}}).get(); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("files that are not there: %v", err)
	}
	first := plant(t, s)
	r := run(t, s, nil)
	served := func() string {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(r.url, "https://"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return string(conn.ConnectionState().PeerCertificates[0].Raw)
	}
	if served() != first {
		t.Error("another certificate than the file's")
	}
	second := plant(t, s)
	if served() != second {
		t.Error("not the certificate that replaced it")
	}
	for range 2 {
		if err := os.WriteFile(s.KeyFile, []byte("no key"), 0o600); err != nil {
			t.Fatal(err)
		}
		if served() != second {
			t.Error("not the last good certificate")
		}
	}
	if n := strings.Count(r.log.String(), "what=certificate"); n != 1 {
		t.Errorf("%d lines in the log:\n%s", n, r.log)
	}
}

// plant writes a new certificate with its key, and returns it.
func plant(t *testing.T, s Settings) string {
	t.Helper()
	c, err := selfSigned()
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{s.CertFile: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, s.KeyFile: {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return string(c.Certificate[0])
}

// A port that is taken is told, and served on once it is free.
func TestPortTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan error, 10)
	s, err := New(Settings{Addr: taken.Addr().String()}, prometheus.NewRegistry(), nil, slog.New(slog.DiscardHandler), func(err error) { received <- err })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	if err := <-received; err == nil {
		t.Error("nothing is told of a port that is taken")
	}
	taken.Close()
	for err := range received {
		if err == nil {
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSettings(t *testing.T) {
	for name, c := range map[string]struct {
		env  string
		want Settings
		err  []string
	}{
		"off":             {"", Settings{}, nil},
		"plain":           {"ADDR=:9111", Settings{Addr: ":9111"}, nil},
		"one interface":   {"ADDR=[fd00::1]:9111", Settings{Addr: "[fd00::1]:9111"}, nil},
		"IPv4 brackets":   {"ADDR=[10.0.0.1]:9111", Settings{Addr: "[10.0.0.1]:9111"}, nil},
		"self-signed":     {"ADDR=:9111 TLS=true AUTHORIZATION=true", Settings{Addr: ":9111", TLS: true, Authorization: true}, nil},
		"from files":      {"ADDR=:9111 CERT_FILE=a KEY_FILE=b", Settings{Addr: ":9111", TLS: true, CertFile: "a", KeyFile: "b"}, nil},
		"all wrong":       {"ADDR=9111 TLS=maybe CERT_FILE=a", Settings{}, []string{`ADDR: "9111"`, `TLS: "maybe"`, "KEY_FILE"}},
		"tokens in clear": {"ADDR=:9111 AUTHORIZATION=true", Settings{}, []string{"MUSLIN_METRICS_AUTHORIZATION: needs"}},
	} {
		t.Run(name, func(t *testing.T) {
			env := map[string]string{}
			for _, word := range strings.Fields(c.env) {
				k, v, _ := strings.Cut(word, "=")
				env["MUSLIN_METRICS_"+k] = v
			}
			got, err := Read(func(k string) string { return env[k] })
			if len(c.err) == 0 && (err != nil || got != c.want) {
				t.Errorf("got %+v, %v", got, err)
			}
			for _, want := range c.err {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want it to name %s", err, want)
				}
			}
		})
	}
}
