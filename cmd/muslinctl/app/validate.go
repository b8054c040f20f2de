package app

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (t *Tool) validate() *cobra.Command {
	var f files
	c := &cobra.Command{
		Use:   "validate -f FILE",
		Short: "Check objects without a server",
		Long: `Check objects without a server: kinds, fields, values, and what the agents would
say of each. --dry-run=server of apply also asks the server's own rules.`,
		Example: "  muslinctl validate -f objects/ -R\n  cat pool.yaml | muslinctl validate -f -",
		Args:    usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			docs, err := t.read(f)
			if err != nil {
				return err
			}
			if err := checkAll(docs); err != nil {
				return err
			}
			fmt.Fprintf(t.Out, "%d resource(s) are valid\n", len(docs))
			return nil
		},
	}
	f.bind(c)
	return c
}
