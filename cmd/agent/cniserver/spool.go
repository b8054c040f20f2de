package cniserver

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/muslin-net/muslin/pkg/cnirpc"
	"github.com/muslin-net/muslin/pkg/cnirpc/spool"
)

// drainer does recorded DELs, each on a goroutine of its own, a few at a time:
// one that has to wait does not hold up the others.
type drainer struct {
	slots chan struct{}
	group sync.WaitGroup

	mu    sync.Mutex
	tries map[string]*try // by path of the record
}

// try is a record that waits, is being done or has failed.
type try struct {
	spoolentry spool.Record
	busy       bool
	after      time.Time // not again before
	failure    string    // the last, so that it is logged once
}

func newDrainer() *drainer {
	return &drainer{slots: make(chan struct{}, parallel), tries: map[string]*try{}}
}

// knows reports whether the record of a path is noted.
func (d *drainer) knows(path string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tries[path] != nil
}

// forget drops what is noted and neither under way nor recorded any more.
func (d *drainer) forget(recorded []spool.Record) {
	paths := map[string]bool{}
	for _, r := range recorded {
		paths[r.Path] = true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for path, t := range d.tries {
		if !t.busy && !paths[path] {
			delete(d.tries, path)
		}
	}
}

func (d *drainer) note(r spool.Record) *try {
	t := d.tries[r.Path]
	if t == nil {
		t = &try{spoolentry: r}
		d.tries[r.Path] = t
	}
	return t
}

// begin reports whether a record is to be done now, and marks it as busy.
func (d *drainer) begin(r spool.Record) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.note(r)
	if t.busy || time.Now().Before(t.after) {
		return false
	}
	t.busy = true
	return true
}

// in notes the new records and returns all those of a network namespace.
func (d *drainer) in(netns string, news []spool.Record) []spool.Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range news {
		d.note(r)
	}
	var out []spool.Record
	for _, t := range d.tries {
		if t.spoolentry.Request.Netns == netns {
			out = append(out, t.spoolentry)
		}
	}
	return out
}

// end notes how it went and reports whether a failure is news.
func (d *drainer) end(path string, err error, again time.Duration) (news bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tries[path]
	if err == nil { // a DEL may have been recorded again meanwhile: a look at the spool finds it
		delete(d.tries, path)
		return false
	}
	news = t.failure != err.Error()
	t.busy, t.failure, t.after = false, err.Error(), time.Now().Add(again)
	return news
}

// drain starts all that is recorded. It logs a spool that cannot be read when
// the failure is not the last one again, and returns its text.
func (s *Server) drain(ctx context.Context, last string) (failure string) {
	records, err := spool.List(s.o.Spool, nil)
	if err != nil {
		if err.Error() != last {
			s.o.Logger.Error("spool not read", "spool", s.o.Spool, "error", err)
		}
		return err.Error()
	}
	s.drainer.forget(records)
	if err := spool.Sweep(s.o.Spool, s.o.Timeout); err != nil {
		s.o.Logger.Warn("spool not swept", "spool", s.o.Spool, "error", err)
	}
	for _, r := range records {
		s.doRecord(ctx, r)
	}
	return ""
}

// doRecord starts one record, unless it is under way or failed a moment ago.
func (s *Server) doRecord(ctx context.Context, r spool.Record) {
	if !s.drainer.begin(r) {
		return
	}
	s.drainer.group.Go(func() {
		s.drainer.slots <- struct{}{}
		defer func() { <-s.drainer.slots }()
		start := time.Now()
		err := s.redo(ctx, r)
		s.observe("DEL", time.Since(start), err)
		switch news := s.drainer.end(r.Path, err, s.o.DrainInterval); {
		case err == nil:
			s.o.Logger.Info("recorded delete done", "container", r.Request.ContainerID, "took", time.Since(start))
		case news && ctx.Err() == nil:
			s.o.Logger.Warn("recorded delete failed, tried again later", "record", r.Path, "error", err)
		}
	})
}

// redo does a record. One that cannot be read, or that can never succeed, is
// dropped with an error in the log.
func (s *Server) redo(ctx context.Context, r spool.Record) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	err := r.Err
	if err == nil {
		var a attachment
		a, err = s.parse(&cnirpc.Request{
			ContainerId: r.Request.ContainerID, Netns: r.Request.Netns, Ifname: r.Request.IfName,
			Args: r.Request.Args, Config: r.Request.Config,
		})
		if err == nil {
			return s.delNow(ctx, a, r.Path)
		}
	}
	var invalid *types.Error
	if r.Err == nil && !errors.As(err, &invalid) {
		return err
	}
	s.o.Logger.Error("recorded delete dropped", "record", r.Path, "error", err)
	return spool.Remove(r)
}
