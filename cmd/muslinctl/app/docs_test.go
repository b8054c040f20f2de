package app

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func tool(out io.Writer) *Tool {
	return &Tool{In: strings.NewReader(""), Out: out, Err: io.Discard, Version: "dev"}
}

// docs/muslinctl.md is what the commands say of themselves.
func TestDocsAreCurrent(t *testing.T) {
	path := filepath.Join("..", "..", "..", "docs", "muslinctl.md")
	var got bytes.Buffer
	if code := Main(t.Context(), tool(&got), []string{"muslinctl", "docs", "markdown"}); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s is not current: run the test with UPDATE_DOCS=1", path)
	}
}

func TestEveryVerbHasExamplesThatParse(t *testing.T) {
	root := tool(io.Discard).Command()
	err := visit(root, func(c *cobra.Command) error {
		if c.HasSubCommands() || c.Name() == "completion" {
			return nil
		}
		if !c.HasExample() {
			t.Errorf("%s has no example", c.CommandPath())
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
		}
		for line := range strings.Lines(c.Example) {
			args := strings.Fields(strings.TrimSpace(line))
			if len(args) < 2 || args[0] != "muslinctl" {
				continue
			}
			if found, _, err := tool(io.Discard).Command().Find(args[1:]); err != nil || found == found.Root() {
				t.Errorf("%s: the example %q names no command", c.CommandPath(), line)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestManPages(t *testing.T) {
	dir := t.TempDir()
	if code := Main(t.Context(), tool(io.Discard), []string{"muslinctl", "docs", "man", dir}); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	page, err := os.ReadFile(filepath.Join(dir, "muslinctl-ipam-show.1"))
	if err != nil || !strings.HasPrefix(string(page), ".TH \"MUSLINCTL-IPAM-SHOW\" 1") || !strings.Contains(string(page), `\-\-show\-blocks`) {
		t.Errorf("%v\n%s", err, page)
	}
}
