package app

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/input"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

// target is a kind, and an object of it when it has a name.
type target struct {
	kind *kind.Kind
	name string
}

// targets reads KIND[,KIND...] [NAME...] or KIND/NAME...
func targets(args []string) ([]target, error) {
	if strings.Contains(args[0], "/") {
		var out []target
		for _, a := range args {
			k, name, ok := strings.Cut(a, "/")
			if !ok || name == "" {
				return nil, api.Usagef("%q: want KIND/NAME, like the other arguments", a)
			}
			found, err := kind.Find(k)
			if err != nil {
				return nil, err
			}
			out = append(out, target{found, name})
		}
		return out, nil
	}
	var out []target
	kinds := strings.Split(args[0], ",")
	if len(kinds) > 1 && len(args) > 1 {
		return nil, api.Usagef("%q: several kinds take no names; use KIND/NAME...", args[0])
	}
	for _, k := range kinds {
		found, err := kind.Find(k)
		if err != nil {
			return nil, err
		}
		if len(args) == 1 {
			out = append(out, target{found, ""})
		}
		for _, name := range args[1:] {
			out = append(out, target{found, name})
		}
	}
	return out, nil
}

// files are the flags of verbs that read objects.
type files struct {
	paths []string
	deep  bool
}

func (f *files) bind(c *cobra.Command) {
	c.Flags().StringArrayVarP(&f.paths, "filename", "f", nil, "file or folder with YAML or JSON, - for standard input; may be given several times")
	c.Flags().BoolVarP(&f.deep, "recursive", "R", false, "read the folders below a folder too")
}

func (t *Tool) read(f files) ([]input.Document, error) {
	if len(f.paths) == 0 {
		return nil, api.Usagef("-f FILE is missing")
	}
	return input.Read(f.paths, f.deep, t.In)
}

// completeKinds offers kinds, then names of objects that are there now.
func (t *Tool) completeKinds(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return matching(kind.Names(), word), cobra.ShellCompDirectiveNoFileComp
	}
	k, err := kind.Find(args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return matching(t.liveNames(c.Context(), k), word), cobra.ShellCompDirectiveNoFileComp
}

// completePools offers the names of pools.
func (t *Tool) completePools(c *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	return matching(t.liveNames(c.Context(), kind.MustFind("ippools")), word), cobra.ShellCompDirectiveNoFileComp
}

// completeNodes offers the names of nodes.
func (t *Tool) completeNodes(c *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	return matching(t.liveNames(c.Context(), kind.MustFind("nodes")), word), cobra.ShellCompDirectiveNoFileComp
}

// liveNames asks the server; a shell does not wait long.
func (t *Tool) liveNames(ctx context.Context, k *kind.Kind) []string {
	client, err := t.flags.Client()
	if err != nil {
		return nil
	}
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	objects, _, err := client.List(ctx, k, api.Select{})
	if err != nil {
		return nil
	}
	var out []string
	for _, o := range objects {
		out = append(out, kind.Text(o, "metadata.name", ""))
	}
	return out
}

func matching(words []string, prefix string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool { return !strings.HasPrefix(w, prefix) })
}
