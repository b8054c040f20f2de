package boot

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// children starts processes and waits for all of them, also for orphans that
// process 1 inherits: a single owner of wait4, which os/exec would fight with.
type children struct {
	mu      sync.Mutex
	waiting map[int]chan unix.WaitStatus
}

func newChildren() *children {
	return &children{waiting: map[int]chan unix.WaitStatus{}}
}

// spawn starts the service and returns where its wait status will come.
func (c *children) spawn(service Service, logFile *os.File) (<-chan unix.WaitStatus, error) {
	path, err := exec.LookPath(service.Argv[0])
	if err != nil {
		return nil, fmt.Errorf("find program: %w", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	// Held over the start, so that reap finds the entry even of a process
	// that ends at once.
	c.mu.Lock()
	defer c.mu.Unlock()
	process, err := os.StartProcess(path, service.Argv, &os.ProcAttr{
		Dir:   "/",
		Env:   append(os.Environ(), service.Env...),
		Files: []*os.File{null, logFile, logFile},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, err
	}
	exited := make(chan unix.WaitStatus, 1)
	c.waiting[process.Pid] = exited
	return exited, process.Release()
}

// reap waits for children for ever.
func (c *children) reap() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid == 0 {
			<-ended
			continue
		}
		c.mu.Lock()
		exited, ours := c.waiting[pid]
		delete(c.waiting, pid)
		c.mu.Unlock()
		if ours {
			exited <- status
		}
	}
}
