package manifests

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/muslin-net/muslin/cmd/controller/seed"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// guide plays docs/install.md on an API server: there are no nodes, and no image is
// pulled.
type guide struct {
	server                         *kubetest.Server
	makefile, muslinctl, variables string // the Makefile, docs/muslinctl.md, docs/configuration.md
}

// The guide to installing says what works: its commands and objects are played in their
// order, as far as they go without nodes, and one that nobody knows how to play fails.
func TestInstallGuide(t *testing.T) {
	t.Parallel()
	read := func(file string) string {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	g := guide{kubetest.Start(t), read("Makefile"), read("docs/muslinctl.md"), read("docs/configuration.md")}
	text := read("docs/install.md")
	for _, name := range regexp.MustCompile(`MUSLIN_\w+`).FindAllString(text, -1) {
		if !strings.Contains(g.variables, "`"+name+"`") {
			t.Errorf("docs/configuration.md has no %s", name)
		}
	}
	played := 0
	for _, part := range parts(text) {
		program, _, _ := strings.Cut(part, " ")
		switch {
		case strings.HasPrefix(part, "apiVersion:"):
			g.object(t, part)
		case program == "protocol":
			parses(t, "router id 192.0.2.1;\nprotocol device {}\n"+part, "bird", "-p", "-c")
		case program == "router":
			parses(t, part, "unshare", "-m", "sh", "-ec", `mount -t tmpfs tmpfs /var/tmp; exec /usr/lib/frr/bgpd "$@"`, "bgpd", "-S", "-C", "-f")
		default:
			g.command(t, part)
		}
		played++
	}
	if played < 20 {
		t.Errorf("%d parts were found in the guide; is it read as it should be?", played)
	}
}

// inline are commands within a text; one of which only the name is there is none.
var inline = regexp.MustCompile("`((?:kubectl|helm|muslinctl|make) [^`]+)`")

// parts are the guide's objects, configurations and commands, in order: an indented block
// is one or, if it begins with a program, one for each line.
func parts(text string) (out []string) {
	var block []string
	end := func() {
		whole := strings.Join(block, "\n")
		switch {
		case whole == "":
		case strings.HasPrefix(whole, "apiVersion:"), strings.HasPrefix(whole, "protocol "), strings.HasPrefix(whole, "router "):
			out = append(out, whole)
		default:
			for _, line := range block {
				line, _, _ = strings.Cut(line, " #")
				out = append(out, strings.TrimSpace(line))
			}
		}
		block = nil
	}
	for line := range strings.Lines(text) {
		if code, ok := strings.CutPrefix(line, "    "); ok {
			block = append(block, strings.TrimRight(code, "\n"))
			continue
		}
		end()
		for _, found := range inline.FindAllStringSubmatch(line, -1) {
			out = append(out, found[1])
		}
	}
	end()
	return out
}

// object applies one, and has the controller's reader take a seed.
func (g guide) object(t *testing.T, text string) {
	t.Helper()
	g.server.MustKubectl(t, text, "apply", "-f", "-")
	var m corev1.ConfigMap
	if err := yaml.Unmarshal([]byte(text), &m); err != nil || m.Kind != "ConfigMap" {
		return
	}
	objects, refused := seed.Read(m.Data)
	if len(objects) == 0 || len(refused) > 0 || m.Name != seed.Name {
		t.Errorf("ConfigMap %s: %v, refused %v", m.Name, objects, refused)
	}
	for _, o := range objects {
		g.server.MustKubectl(t, string(o.JSON), "create", "--dry-run=server", "--validate=strict", "-f", "-")
	}
}

// command plays one, as far as it goes.
func (g guide) command(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	switch {
	case words[0] == "kubectl":
		g.kubectl(t, words[1:])
	case words[0] == "make":
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(words[1]) + `:`).MatchString(g.makefile) {
			t.Errorf("%s: the Makefile has no %s", line, words[1])
		}
	case words[0] == "ctr":
		if file := words[len(words)-1]; !strings.Contains(g.makefile, "-o "+file) {
			t.Errorf("%s: make image does not write %s", line, file)
		}
	case words[0] == "muslinctl":
		if !strings.Contains(g.muslinctl, line) {
			t.Errorf("docs/muslinctl.md has no %s", line)
		}
	case words[0] == "helm":
		g.helm(t, words[1:])
	case words[0] == "muslin-agent":
		cleans(t, words[1:])
	default:
		t.Errorf("this test cannot play: %s", line)
	}
}

// kubectl runs one in the repository's folder. Nothing rolls agents out here, and nobody
// empties a namespace: neither is waited for.
func (g guide) kubectl(t *testing.T, words []string) {
	t.Helper()
	for i, w := range words {
		if strings.HasPrefix(w, "manifests/") {
			words[i] = filepath.Join(kubetest.Root(), w)
		}
	}
	switch text := strings.Join(words, " "); {
	case strings.Contains(text, "rollout status"):
		words = append(words, "--watch=false")
	case strings.Contains(text, "delete "):
		words = append(words, "--wait=false")
	}
	g.server.MustKubectl(t, "", words...)
	if words[0] == "apply" {
		g.server.MustKubectl(t, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	}
}

// helm renders what would be installed; of other verbs it asks whether there are such.
func (g guide) helm(t *testing.T, words []string) {
	t.Helper()
	if words[0] == "install" {
		words[0] = "template"
		for i, w := range words {
			if strings.HasPrefix(w, "manifests/") {
				words[i] = filepath.Join(root, w)
			}
		}
		if out, err := helm(t, "", append(words, "--kube-version=1.33.0")...); err != nil || !strings.Contains(out, "kind: DaemonSet") {
			t.Errorf("helm %v: %v", words, err)
		}
		return
	}
	if out, err := helm(t, "", words[0], "--help"); err != nil || !strings.Contains(out, "helm "+words[0]+" ") {
		t.Errorf("helm %v: %v\n%s", words, err, out)
	}
}

// cleans asks the agent whether it has a verb and its flags.
func cleans(t *testing.T, words []string) {
	t.Helper()
	agent := exec.CommandContext(t.Context(), "go", "run", "./cmd/agent", words[0], "-h")
	agent.Dir = root
	out, _ := agent.CombinedOutput()
	for _, flag := range append(words[1:], "Usage of "+words[0]) {
		if !strings.Contains(string(out), strings.TrimPrefix(flag, "-")) {
			t.Errorf("muslin-agent %v: %s", words, out)
		}
	}
}

// parses has a router read a configuration.
func parses(t *testing.T, text, program string, args ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(context.Background(), program, append(args, file)...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s\n%s", program, err, out, text)
	}
}
