package policynft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nftw"
	"github.com/muslin-net/muslin/felix/policy"
)

// Options are the settings of a Sink.
type Options = nftw.Options

// Sink writes the table. Apply and Run may be called from different goroutines, Apply
// from one at a time.
type Sink struct {
	*nftw.Writer
	memory  memory
	discard bool // the kernel cannot log
	denials atomic.Pointer[map[string]Denial]
	log     *slog.Logger
}

// New opens the sockets. Call Run to have drift noticed, Close at the end.
func New(o Options) (*Sink, error) {
	w, err := nftw.New(TableName, o)
	if err != nil {
		return nil, err
	}
	s := &Sink{Writer: w, log: o.Logger}
	if s.log == nil {
		s.log = slog.Default()
	}
	return s, nil
}

// Apply makes the table that of p. prefixes are what the names of pods' interfaces
// begin with. As long as p.Complete is false nothing is written: what is closed stays
// closed, and what is open open. A Program without chains needs no table, unless it is
// closed to pods that it does not know.
func (s *Sink) Apply(ctx context.Context, p policy.Program, prefixes []string) error {
	if !p.Complete {
		return nil
	}
	if !p.Evaluates() && !p.Closed {
		return s.Writer.Apply(ctx, nil, true)
	}
	err := s.write(ctx, p, prefixes)
	if errors.Is(err, unix.ENOENT) && !s.discard {
		// What the kernel has not is most likely its modules that log.
		s.discard = true
		if s.write(ctx, p, prefixes) == nil {
			s.log.Warn("the kernel cannot log: denied packets are not seen, and rules of action Log do nothing", "error", err)
			return nil
		}
		s.discard = false
	}
	return err
}

func (s *Sink) write(ctx context.Context, p policy.Program, prefixes []string) error {
	if err := s.adoptEpoch(p.EpochMask); err != nil {
		return err
	}
	want, err := s.memory.compile(p, prefixes, s.discard)
	if err != nil {
		return fmt.Errorf("compile table inet %s: %w", TableName, err)
	}
	if err := s.Writer.Apply(ctx, want.Table, true); err != nil {
		return err
	}
	s.denials.Store(&want.denials)
	return nil
}

// Remove deletes the table in the namespace at path netns (empty: the process's
// own) and reports whether there was one.
func Remove(netns string) (bool, error) { return nftw.Remove(TableName, netns) }
