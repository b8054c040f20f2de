package app

import (
	"cmp"
	_ "embed" // the head of the page
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
)

//go:embed docshead.md
var docsHead string

// docs writes the reference out of the commands themselves.
func (t *Tool) docs() *cobra.Command {
	return &cobra.Command{
		Use: "docs (markdown | man DIR)", Short: "Write the reference or the man pages", Hidden: true,
		Args: usage(cobra.RangeArgs(1, 2)),
		RunE: func(c *cobra.Command, args []string) error {
			root := c.Root()
			switch {
			case args[0] == "markdown" && len(args) == 1:
				return markdown(t.Out, root)
			case args[0] == "man" && len(args) == 2:
				return manPages(args[1], root)
			}
			return api.Usagef("want markdown, or man DIR")
		},
	}
}

// visit calls f for every command that users see, parents first.
func visit(c *cobra.Command, f func(*cobra.Command) error) error {
	if c.Hidden || c.Name() == "help" || c.Name() == "completion" && c.HasParent() && !c.Parent().HasParent() && !c.HasExample() {
		return nil
	}
	if err := f(c); err != nil {
		return err
	}
	for _, sub := range c.Commands() {
		if err := visit(sub, f); err != nil {
			return err
		}
	}
	return nil
}

func markdown(w io.Writer, root *cobra.Command) error {
	if _, err := io.WriteString(w, docsHead); err != nil {
		return err
	}
	return visit(root, func(c *cobra.Command) error {
		var b strings.Builder
		fmt.Fprintf(&b, "### %s\n\n%s\n\n", c.CommandPath(), cmp.Or(c.Long, c.Short+"."))
		if c.Runnable() && !c.HasSubCommands() || c.HasExample() {
			fmt.Fprintf(&b, "    %s\n\n", c.UseLine())
		}
		if c.HasExample() {
			fmt.Fprintf(&b, "Examples:\n\n%s\n\n", indent(c.Example, "  "))
		}
		if flags := flagList(c); len(flags) > 0 {
			fmt.Fprintf(&b, "| flag | meaning |\n|---|---|\n")
			for _, f := range flags {
				fmt.Fprintf(&b, "| `%s` | %s |\n", f[0], strings.ReplaceAll(f[1], "|", "\\|"))
			}
			fmt.Fprintln(&b)
		}
		_, err := io.WriteString(w, b.String())
		return err
	})
}

func indent(text, by string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = by + lines[i]
	}
	return strings.Join(lines, "\n")
}

func flagList(c *cobra.Command) [][2]string {
	var out [][2]string
	flags := c.NonInheritedFlags()
	if c.HasParent() {
		flags = c.LocalFlags()
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if t := f.Value.Type(); t != "bool" {
			name += " " + t
		}
		out = append(out, [2]string{name, f.Usage})
	})
	return out
}

// manPages writes one page in man(7) for each command.
func manPages(dir string, root *cobra.Command) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return &api.UsageError{Err: err}
	}
	return visit(root, func(c *cobra.Command) error {
		name := strings.ReplaceAll(c.CommandPath(), " ", "-")
		var b strings.Builder
		fmt.Fprintf(&b, ".TH %q 1 \"\" Muslin \"Muslin\"\n.SH NAME\n%s \\- %s\n", strings.ToUpper(name), roff(name), roff(c.Short))
		fmt.Fprintf(&b, ".SH SYNOPSIS\n.nf\n%s\n.fi\n.SH DESCRIPTION\n.nf\n%s\n.fi\n", roff(c.UseLine()), roff(cmp.Or(c.Long, c.Short+".")))
		if flags := flagList(c); len(flags) > 0 {
			b.WriteString(".SH OPTIONS\n")
			for _, f := range flags {
				fmt.Fprintf(&b, ".TP\n\\fB%s\\fR\n%s\n", roff(f[0]), roff(f[1]))
			}
		}
		if c.HasExample() {
			fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(c.Example))
		}
		return os.WriteFile(filepath.Join(dir, name+".1"), []byte(b.String()), 0o644)
	})
}

// roff keeps text from being read as commands.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
