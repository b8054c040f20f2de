// Package sysctl makes the sysctls of a felix.State true.
//
// It never restores a value and never writes one that is as wanted: which ones
// there are, is the State's business.
//
// Kernel footprint: the files below /proc/sys that the State names, that is
// net/ipv4/ip_forward and net/ipv6/conf/all/forwarding. How does a fresh process
// recognise this as ours? It does not: a sysctl has no owner, so none is ever
// taken back.
package sysctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
)

// Options are the settings of a Writer.
type Options struct {
	NetNS string // path of the network namespace; empty: the process's own
	// ProcSys is where /proc/sys can be written; empty: /proc/sys. In a
	// container it is a mount of the host's.
	ProcSys string
}

// Writer writes sysctls.
type Writer struct {
	ns   *nl.NS
	root string
}

// New holds the namespace; Close lets go of it.
func New(o Options) (*Writer, error) {
	ns, err := nl.Open(o.NetNS)
	if err != nil {
		return nil, err
	}
	w := &Writer{ns: ns, root: o.ProcSys}
	if w.root == "" {
		w.root = "/proc/sys"
	}
	return w, nil
}

// Close lets go of the namespace; the values stay.
func (w *Writer) Close() error { return w.ns.Close() }

// Apply writes the values that differ. It goes on after an error.
func (w *Writer) Apply(ctx context.Context, s felix.State) error {
	if len(s.Sysctls) == 0 {
		return ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return w.ns.Do(func() error {
		var errs []error
		for _, c := range s.Sysctls {
			if err := w.set(c); err != nil {
				errs = append(errs, fmt.Errorf("set sysctl %s: %w", c, err))
			}
		}
		return errors.Join(errs...)
	})
}

func (w *Writer) set(c felix.Sysctl) error {
	path := filepath.Join(w.root, c.Key)
	have, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(have)) == c.Value {
		return nil
	}
	return os.WriteFile(path, []byte(c.Value), 0)
}
