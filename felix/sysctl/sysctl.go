// Package sysctl makes the sysctls of a felix.State true.
//
// It never restores a value and never writes one that is as wanted: which ones
// there are, is the State's business.
//
// Kernel footprint: the files below /proc/sys that the State names, that is
// net/ipv4/ip_forward, net/ipv6/conf/all/forwarding, and accept_ra of links
// that live on router advertisements. How does a fresh process
// recognise this as ours? It does not: a sysctl has no owner, so none is ever
// taken back.
package sysctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
)

// Options are the settings of a Writer.
type Options struct {
	NetNS string // path of the network namespace; empty: the process's own
	// Root is where /proc/sys can be written; empty: /proc/sys. In a container
	// it is a mount of the host's.
	Root   string
	Logger *slog.Logger // nil: slog.Default()
}

// Writer writes sysctls.
type Writer struct {
	log         *slog.Logger
	netns, root string
}

// New makes a Writer; it holds nothing.
func New(o Options) *Writer {
	return &Writer{log: cmp.Or(o.Logger, slog.Default()), netns: o.NetNS, root: cmp.Or(o.Root, "/proc/sys")}
}

// Apply writes the values that differ. It goes on after an error.
func (w *Writer) Apply(ctx context.Context, s felix.State) error {
	if err := ctx.Err(); err != nil || len(s.Sysctls) == 0 {
		return err
	}
	if w.netns == "" {
		return w.all(s.Sysctls) // no thread has to go anywhere
	}
	ns, err := nl.Open(w.netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(func() error { return w.all(s.Sysctls) })
}

func (w *Writer) all(sysctls []felix.Sysctl) error {
	var errs []error
	for _, c := range sysctls {
		if err := w.set(c); err != nil {
			errs = append(errs, fmt.Errorf("set sysctl %s: %w", c, err))
		}
	}
	return errors.Join(errs...)
}

func (w *Writer) set(c felix.Sysctl) error {
	path := filepath.Join(w.root, c.Key)
	have, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if now := strings.TrimSpace(string(have)); now == c.Value || c.If != "" && now != c.If {
		return nil
	}
	if err := os.WriteFile(path, []byte(c.Value), 0); err != nil {
		return err
	}
	w.log.Info("sysctl set", "key", c.Key, "value", c.Value)
	return nil
}
