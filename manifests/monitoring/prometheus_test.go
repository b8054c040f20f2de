package monitoring_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// watched is a node of its own network namespace: API server, agent, controller, a
// router, and a Prometheus that scrapes both as manifests/monitoring says.
type watched struct {
	*kubetest.Server
	t     *testing.T
	http  *http.Client
	token string
	procs map[string]*exec.Cmd
}

const objects = `apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.77.0.0/16, vxlanMode: Always}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor, annotations: {muslin.io/bfd: 1s}}
spec: {peerIP: 10.1.0.254, asNumber: 65001}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: kept}
spec: {cidr: 10.78.0.0/24}
---
apiVersion: projectcalico.org/v3
kind: IPReservation
metadata: {name: all}
spec: {reservedCIDRs: [10.78.0.0/16]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus, namespace: default}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: stranger, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: prometheus}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: muslin-metrics-reader}
subjects: [{kind: ServiceAccount, name: prometheus, namespace: default}]
`

const bird = `router id 10.1.0.254;
protocol device {}
protocol bfd { interface "eth0" { interval 1 s; }; }
protocol static { ipv4; route 192.0.2.0/24 blackhole; %s }
protocol bgp node {
  local 10.1.0.254 as 65001; neighbor 10.1.0.1 as 64512; bfd;
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 { import all; export all; };
}
`

func watch(t *testing.T) *watched {
	t.Helper()
	w := &watched{Server: kubetest.Start(t), t: t, procs: map[string]*exec.Cmd{}}
	w.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext: w.Dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}}
	w.MustKubectl(t, "", "apply", "-k", kubetest.Root()+"/manifests/overlays/monitoring")
	w.MustKubectl(t, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	w.MustKubectl(t, objects, "apply", "-f", "-")
	w.MustKubectl(t, "", "patch", "node", "n1", "--subresource=status", "-p", `{"status":{"addresses":[{"type":"InternalIP","address":"10.1.0.1"}]}}`)
	rack := w.Netns + "-rack"
	w.command(exec.Command("ip", "netns", "add", rack))
	t.Cleanup(func() { w.command(exec.Command("ip", "netns", "del", rack)) })
	for _, words := range []string{
		"ip link add eth0 type veth peer name eth0 netns " + rack, "ip addr add 10.1.0.1/24 dev eth0", "ip link set eth0 up",
		"ip netns exec " + rack + " ip addr add 10.1.0.254/24 dev eth0", "ip netns exec " + rack + " ip link set eth0 up",
	} {
		words := strings.Fields(words)
		w.command(w.Exec(words[0], words[1:]...))
	}
	build := exec.Command("go", "build", "-o", w.Dir, "./cmd/agent", "./cmd/controller", "./cmd/cni")
	build.Dir = kubetest.Root()
	w.command(build)
	w.token = w.tokenOf("prometheus")
	w.router("route 169.254.77.0/24 blackhole;")
	w.startAgent()
	w.startController()
	w.startPrometheus()
	return w
}

func (w *watched) tokenOf(account string) string {
	return strings.TrimSpace(w.MustKubectl(w.t, "", "create", "token", account))
}

func (w *watched) command(cmd *exec.Cmd) {
	w.t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

// start runs a process until stop or the end of the test.
func (w *watched) start(name string, cmd *exec.Cmd) {
	w.t.Helper()
	log, err := os.OpenFile(w.file(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.procs[name] = cmd
	w.t.Cleanup(func() { w.stop(name) })
}

func (w *watched) stop(name string) {
	if cmd := w.procs[name]; cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		delete(w.procs, name)
	}
}

func (w *watched) file(name string) string { return filepath.Join(w.Dir, name) }

// router has the router announce these too.
func (w *watched) router(routes string) {
	w.t.Helper()
	if err := os.WriteFile(w.file("bird.conf"), fmt.Appendf(nil, bird, routes), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if w.procs["bird"] != nil {
		w.command(exec.Command("birdc", "-s", w.file("bird.ctl"), "configure"))
		return
	}
	w.start("bird", exec.Command("ip", "netns", "exec", w.Netns+"-rack", "bird", "-f", "-c", w.file("bird.conf"), "-s", w.file("bird.ctl"), "-P", w.file("bird.pid")))
}

func (w *watched) startAgent() {
	cmd := w.Exec(w.file("agent"))
	cmd.Env = append(os.Environ(), "NODE_NAME=n1", "KUBECONFIG="+w.file("kubeconfig"), "MUSLIN_PROC_SYS=/proc/sys", "MUSLIN_CNI_CONF=none",
		"MUSLIN_SOCKET="+w.file("agent.sock"), "MUSLIN_STATE="+w.file("state"),
		"MUSLIN_METRICS_ADDR=:9111", "MUSLIN_METRICS_TLS=true", "MUSLIN_METRICS_AUTHORIZATION=true")
	w.start("agent", cmd)
}

func (w *watched) startController() {
	cmd := w.Exec(w.file("controller"))
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.file("kubeconfig"), "POD_NAME=one",
		"MUSLIN_METRICS_ADDR=:9112", "MUSLIN_METRICS_TLS=true", "MUSLIN_METRICS_AUTHORIZATION=true")
	w.start("controller", cmd)
}

// startPrometheus runs the rules with "for" and the longest look back cut short, and
// scrape.yaml with the two targets as the discovery of pods would give them.
func (w *watched) startPrometheus() {
	w.t.Helper()
	rules := regexp.MustCompile(`(?m)^    for: .*$`).ReplaceAllString(string(read(w.t, rulesFile)), "    for: 1s")
	rules = strings.ReplaceAll(rules, "[15m]", "[10s]")
	var config map[string]any
	if err := yaml.Unmarshal(read(w.t, "scrape.yaml"), &config); err != nil {
		w.t.Fatal(err)
	}
	job := config["scrape_configs"].([]any)[0].(map[string]any)
	delete(job, "kubernetes_sd_configs") // Debian's Prometheus has none
	pod := func(component, target string) map[string]any {
		return map[string]any{"targets": []string{target}, "labels": map[string]string{
			"__meta_kubernetes_pod_container_port_name": "metrics", "__meta_kubernetes_pod_node_name": "n1",
			"__meta_kubernetes_pod_label_app_kubernetes_io_component": component,
		}}
	}
	job["static_configs"] = []any{pod("agent", "10.1.0.1:9111"), pod("controller", "10.1.0.1:9112")}
	job["authorization"] = map[string]string{"credentials_file": w.file("token")}
	config["rule_files"] = []string{w.file("rules.yaml")}
	config["global"] = map[string]string{"scrape_interval": "1s", "evaluation_interval": "1s"}
	text, err := yaml.Marshal(config)
	if err != nil {
		w.t.Fatal(err)
	}
	for name, content := range map[string][]byte{"rules.yaml": []byte(rules), "prometheus.yaml": text, "token": []byte(w.token)} {
		if err := os.WriteFile(w.file(name), content, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	w.start("prometheus", w.Exec("prometheus", "--config.file="+w.file("prometheus.yaml"), "--storage.tsdb.path="+w.file("tsdb"), "--web.listen-address=127.0.0.1:9090"))
}

// get asks a server of the node for a page.
func (w *watched) get(address, token string) (code int, body string, err error) {
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, address, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := w.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// query asks Prometheus; each series is its labels and its value.
func (w *watched) query(expr string) (series []map[string]string, err error) {
	_, body, err := w.get("http://127.0.0.1:9090/api/v1/query?query="+url.QueryEscape(expr), "")
	if err != nil {
		return nil, err
	}
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Status != "success" {
		return nil, fmt.Errorf("%s: %s %s %w", expr, answer.Status, answer.Error, err)
	}
	for _, r := range answer.Data.Result {
		if r.Metric == nil {
			r.Metric = map[string]string{}
		}
		r.Metric["value"] = fmt.Sprint(r.Value[1])
		series = append(series, r.Metric)
	}
	return series, nil
}

// firing are the names of the alerts that fire.
func (w *watched) firing() []string {
	series, err := w.query(`ALERTS{alertstate="firing"}`)
	if err != nil {
		return []string{err.Error()}
	}
	names := map[string]bool{}
	for _, s := range series {
		names[s["alertname"]] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// await waits until as many as are named are true of what Prometheus knows.
func (w *watched) await(what string, ok func() bool) {
	w.t.Helper()
	defer func(start time.Time) { w.t.Logf("%s: after %s", what, time.Since(start).Round(100*time.Millisecond)) }(time.Now())
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("waited in vain: %s; firing: %q; %s", what, w.firing(), w.logs())
		}
	}
}

func (w *watched) logs() string {
	var out strings.Builder
	for _, name := range []string{"agent", "controller", "prometheus"} {
		text, _ := os.ReadFile(w.file(name + ".log"))
		fmt.Fprintf(&out, "\n%s:\n%s", name, text[max(0, len(text)-3000):])
	}
	return out.String()
}

// fires sees these alerts fire.
func (w *watched) fires(alerts ...string) {
	w.t.Helper()
	w.await(fmt.Sprintf("%q fire", alerts), func() bool {
		firing := w.firing()
		return !slices.ContainsFunc(alerts, func(a string) bool { return !slices.Contains(firing, a) })
	})
}

// clears sees all alerts clear, but these.
func (w *watched) clears(but ...string) {
	w.t.Helper()
	w.await("all is well again", func() bool {
		return !slices.ContainsFunc(w.firing(), func(a string) bool { return !slices.Contains(but, a) })
	})
}

// calico applies an object of Calico's API.
func (w *watched) calico(kind, meta, spec string) {
	w.t.Helper()
	w.MustKubectl(w.t, fmt.Sprintf("{apiVersion: projectcalico.org/v3, kind: %s, metadata: {%s}, spec: {%s}}", kind, meta, spec), "apply", "-f", "-")
}

// A real Prometheus scrapes the real agent and controller over TLS with its token,
// and nobody does without. Alerts fire for planted faults and clear. Each query of
// the dashboards has data, and each metric that they and the rules name is scraped.
func TestPrometheus(t *testing.T) {
	w := watch(t)
	w.await("both are scraped, the session stands", func() bool {
		up, err := w.query(`up == 1`)
		established, _ := w.query(`muslin_bgp_sessions{node="n1",state="Established"} == 1 and on() muslin_leader == 1`)
		return err == nil && len(up) == 2 && len(established) == 1
	})
	// Planted in watch: these are counted at start, and every half minute.
	counted := []string{"MuslinPrefixesRefused", "MuslinPoolExhausted", "MuslinPoolFilling"}
	w.fires(counted...)
	w.clears(counted...)
	t.Run("access", w.access)

	w.calico("BGPPeer", "name: nobody", "peerIP: 10.1.0.253, asNumber: 65001, filters: [none]")
	w.fires("MuslinObjectNotHonoured", "MuslinBGPRouterSessionDown")
	t.Run("dashboards", w.dashboards)
	w.MustKubectl(t, "", "delete", "bgppeer/nobody", "ipreservation/all")
	w.router("")
	w.clears(counted...)

	w.calico("BGPPeer", "name: tor", "peerIP: 10.1.0.254, asNumber: 65009")
	w.stop("controller")
	w.fires("MuslinBGPSessionMisconfigured", "MuslinBGPNodeIsolated", "MuslinControllerDown")
	w.calico("BGPPeer", "name: tor", "peerIP: 10.1.0.254, asNumber: 65001")
	w.startController()
	w.clears(counted...)

	w.stop("agent")
	w.fires("MuslinAgentDown")
	w.startAgent()
	w.clears()
}

// access is refused without a token that may, for both.
func (w *watched) access(t *testing.T) {
	unknown := w.tokenOf("stranger")
	for _, port := range []string{"9111", "9112"} {
		at := "https://10.1.0.1:" + port
		for _, c := range []struct {
			url, token string
			want       int
		}{
			{at + "/metrics", "", http.StatusUnauthorized},
			{at + "/metrics", "made-up", http.StatusUnauthorized},
			{at + "/metrics", unknown, http.StatusForbidden},
			{at + "/metrics", w.token, http.StatusOK},
			{at + "/status", w.token, http.StatusNotFound},
			{at + "/show", w.token, http.StatusNotFound},
		} {
			if code, body, err := w.get(c.url, c.token); code != c.want || err != nil {
				t.Errorf("%s: %d %v, want %d: %.100s", c.url, code, err, c.want, body)
			}
		}
		if code, _, _ := w.get("http://10.1.0.1:"+port+"/metrics", w.token); code == http.StatusOK {
			t.Errorf("port %s serves without TLS", port)
		}
	}
}

// never are metrics that have no series before something rare has happened.
var never = []string{"ipam_allocations_gc_reclamations", "muslin_bgp_origin_refusals_total"}

// dashboards asks each query of each panel, after a CNI request, while one peer does
// not answer and the other announces what is refused.
func (w *watched) dashboards(t *testing.T) {
	cmd := w.Exec(w.file("cni"))
	cmd.Env = []string{"CNI_COMMAND=STATUS", "CNI_PATH=/"}
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.1.0","name":"k8s-pod-network","type":"muslin","socket":%q}`, w.file("agent.sock")))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("STATUS: %v %s", err, out)
	}
	for name, d := range readDashboards(t) {
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				w.await(fmt.Sprintf("%s, panel %q has data: %s", name, p.Title, filled(q.Expr)), func() bool {
					series, err := w.query(filled(q.Expr))
					return err == nil && len(series) > 0
				})
			}
		}
	}
	for name := range documented(t) {
		series, err := w.query(fmt.Sprintf(`{__name__=~"%s(_bucket)?"}`, name))
		if err != nil || len(series) == 0 && !slices.Contains(never, name) {
			t.Errorf("%s is not scraped: %v", name, err)
		}
	}
}
