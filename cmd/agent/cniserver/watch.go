package cniserver

import (
	"os"
	"time"

	"github.com/fsnotify/fsnotify"
)

// unwatched is how long a record may lie where the kernel does not tell of it.
const unwatched = time.Second

// watch tells of files that are put into a directory, as long as the kernel does:
// all processes of root share a number of watches (fs.inotify.max_user_instances).
type watch struct {
	dir     string
	w       *fsnotify.Watcher // nil: nothing is told
	failure string            // why, as it was last
}

// renew watches the directory, which it makes; one that was made anew is another.
func (w *watch) renew() error {
	err := os.MkdirAll(w.dir, 0o700)
	if err == nil && w.w == nil {
		w.w, err = fsnotify.NewBufferedWatcher(128)
	}
	if err == nil {
		err = w.w.Add(w.dir)
	}
	if err != nil {
		w.close()
	}
	return err
}

func (w *watch) close() {
	if w.w != nil {
		_ = w.w.Close()
		w.w = nil
	}
}

func (w *watch) events() <-chan fsnotify.Event {
	if w.w == nil {
		return nil
	}
	return w.w.Events
}

func (w *watch) errors() <-chan error {
	if w.w == nil {
		return nil
	}
	return w.w.Errors
}

// renew has the spool watched, and logs when that can no longer be had.
func (s *Server) renew(w *watch) {
	err := w.renew()
	if err == nil {
		w.failure = ""
		return
	}
	if err.Error() == w.failure {
		return
	}
	w.failure = err.Error()
	s.o.Logger.Warn("spool not watched, looked at every second instead", "spool", s.o.Spool, "error", err,
		"hint", "fs.inotify.max_user_instances and max_user_watches may be too low")
}

// pause is the time between looks at the whole spool.
func (s *Server) pause(w *watch) time.Duration {
	if w.w == nil {
		return min(s.o.DrainInterval, unwatched)
	}
	return s.o.DrainInterval
}
