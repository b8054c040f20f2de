package app

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

// Tool is what every verb shares.
type Tool struct {
	In       io.Reader
	Out, Err io.Writer
	Version  string
	flags    api.Flags
	colour   colour
}

// Main runs a command line and gives the exit code.
func Main(ctx context.Context, t *Tool, args []string) int {
	root := t.Command()
	root.SetArgs(args[1:])
	root.SetIn(t.In)
	root.SetOut(t.Out)
	root.SetErr(t.Err)
	if strings.HasPrefix(filepath.Base(args[0]), "kubectl-") {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl muslin"}
	}
	err := root.ExecuteContext(ctx)
	if err == nil {
		return api.ExitOK
	}
	if ctx.Err() != nil {
		return 130 // as a shell reports an interrupt
	}
	lines, code := api.Explain(err)
	for _, l := range lines {
		fmt.Fprintln(t.Err, "muslinctl: "+l)
	}
	return code
}

// Command is the whole tree.
func (t *Tool) Command() *cobra.Command {
	root := &cobra.Command{
		Use:   "muslinctl",
		Short: "Manage and understand a Muslin network",
		Long: `muslinctl manages the objects of a Muslin network and answers questions about it:
which peers a node has, who owns an address, why one pod does not reach another.
It works wherever kubectl works, and as a kubectl plugin: kubectl muslin ...

Exit codes:
  0  success
  1  the server refused, or something went wrong on the way
  2  the command line or the input cannot be understood
  3  some objects were written and others were not
  4  check, explain or ipam check found something wrong
  5  no kubeconfig, or no API server behind it
  6  not logged in, or not allowed
  7  the object has changed since it was read`,
		SilenceErrors: true, SilenceUsage: true,
		Args: noSuchCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return api.Usagef("%w; see %s --help", err, c.CommandPath())
	})
	t.flags.Bind(root.PersistentFlags())
	root.PersistentFlags().Var(&t.colour, "color", "auto: on a terminal and without NO_COLOR; always; never")
	root.AddGroup(&cobra.Group{ID: groupObjects, Title: "Objects:"}, &cobra.Group{ID: groupLook, Title: "Understanding:"}, &cobra.Group{ID: groupOther, Title: "Other:"})
	root.SetHelpCommandGroupID(groupOther)
	root.SetCompletionCommandGroupID(groupOther)
	for group, commands := range t.groups() {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	root.AddCommand(t.docs())
	return root
}

const (
	groupObjects = "objects"
	groupLook    = "look"
	groupOther   = "other"
)

func noSuchCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			names = append(names, sub.Name())
		}
	}
	near := kind.Nearest(args[0], names)
	if near == "" {
		return api.Usagef("unknown command %q; see %s --help", args[0], c.CommandPath())
	}
	return api.Usagef("unknown command %q: did you mean %s?", args[0], near)
}

// group is a command that only holds others.
func group(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Long: long, Args: noSuchCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(commands...)
	return c
}

// usage makes a check of the number of arguments a UsageError.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return api.Usagef("%w; usage: %s", err, c.UseLine())
		}
		return nil
	}
}

// Streams are those of the process.
func Streams(version string) *Tool {
	return &Tool{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Version: version}
}
