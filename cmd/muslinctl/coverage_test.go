package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/cmd/muslinctl/app"
	"github.com/muslin-net/muslin/cmd/muslinctl/print"
)

// Every command that users see, and every format of get, is in a script.
func TestEveryVerbAndFormatIsInAScript(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	var all strings.Builder
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(data)
	}
	scripts := strings.ReplaceAll(all.String(), "kubectl-muslin ", "muslinctl ")
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if !sub.Hidden && sub.Name() != "help" && sub.Name() != "powershell" {
				walk(sub)
			}
		}
		if !c.HasSubCommands() && !strings.Contains(scripts, c.CommandPath()+" ") && !strings.Contains(scripts, c.CommandPath()+"\n") {
			t.Errorf("no script runs %q", c.CommandPath())
		}
	}
	root := (&app.Tool{}).Command()
	root.InitDefaultCompletionCmd()
	walk(root)
	for _, f := range print.Formats {
		if f != "ps" && !strings.Contains(scripts, "-o "+f) {
			t.Errorf("no script asks for -o %s", f)
		}
	}
}
