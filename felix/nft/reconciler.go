package nft

import (
	"context"
	"fmt"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nftw"
)

// Options are the settings of a Reconciler.
type Options = nftw.Options

// Reconciler writes the table. Apply and Run may be called from different
// goroutines.
type Reconciler struct{ *nftw.Writer }

// New opens the sockets. Call Run to have drift noticed, Close at the end.
func New(o Options) (*Reconciler, error) {
	w, err := nftw.New(felix.TableName, o)
	if err != nil {
		return nil, err
	}
	return &Reconciler{w}, nil
}

// Apply makes the table that of s.Rules: see nftw.Writer. As long as s.Rules.Complete
// is false a table that is there stays as it is.
func (r *Reconciler) Apply(ctx context.Context, s felix.State) error {
	want, err := compile(s.Rules)
	if err != nil {
		return fmt.Errorf("compile table inet %s: %w", felix.TableName, err)
	}
	return r.Writer.Apply(ctx, want.Table, s.Rules.Complete)
}

// Remove deletes the table in the namespace at path netns (empty: the process's
// own) and reports whether there was one. Tables of others stay.
func Remove(netns string) (bool, error) { return nftw.Remove(felix.TableName, netns) }
