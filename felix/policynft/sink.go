package policynft

import (
	"context"
	"fmt"

	"github.com/muslin-net/muslin/felix/internal/nftw"
	"github.com/muslin-net/muslin/felix/policy"
)

// Options are the settings of a Sink.
type Options = nftw.Options

// Sink writes the table. Apply and Run may be called from different goroutines, Apply
// from one at a time.
type Sink struct {
	*nftw.Writer
	memory memory
}

// New opens the sockets. Call Run to have drift noticed, Close at the end.
func New(o Options) (*Sink, error) {
	w, err := nftw.New(TableName, o)
	if err != nil {
		return nil, err
	}
	return &Sink{Writer: w}, nil
}

// Apply makes the table that of p. prefixes are what the names of pods' interfaces
// begin with. As long as p.Complete is false nothing is written: what is closed stays
// closed, and what is open open. A Program without chains needs no table if it knows
// all pods.
func (s *Sink) Apply(ctx context.Context, p policy.Program, prefixes []string) error {
	if !p.Complete {
		return nil
	}
	if !p.Judges() {
		return s.Writer.Apply(ctx, nil, true)
	}
	s.memory.turn()
	want, err := compile(p, prefixes, &s.memory)
	if err != nil {
		return fmt.Errorf("compile table inet %s: %w", TableName, err)
	}
	return s.Writer.Apply(ctx, want, true)
}

// Remove deletes the table in the namespace at path netns (empty: the process's
// own) and reports whether there was one.
func Remove(netns string) (bool, error) { return nftw.Remove(TableName, netns) }
