package boot

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/hack/lab/internal/cgroup"
)

// Run boots the machine and returns only when it cannot: process 1 of a
// machine runs until it is killed.
func Run(spec Spec, log *slog.Logger) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("boot %s: not process 1 of a PID namespace", spec.Hostname)
	}
	if err := cgroup.Join(spec.Cgroup); err != nil {
		return fmt.Errorf("boot %s: %w", spec.Hostname, err)
	}
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("boot %s: set hostname: %w", spec.Hostname, err)
	}
	logs, err := openLogs(spec)
	if err != nil {
		return fmt.Errorf("boot %s: open logs: %w", spec.Hostname, err)
	}
	if err := mountRoot(spec); err != nil {
		return fmt.Errorf("boot %s: %w", spec.Hostname, err)
	}
	children := newChildren()
	go children.reap()
	for i, service := range spec.Services {
		if err := start(service, logs[i], children, log); err != nil {
			return fmt.Errorf("boot %s: start %s: %w", spec.Hostname, service.Name, err)
		}
	}
	if err := os.WriteFile(BootedFile, nil, 0o644); err != nil {
		return fmt.Errorf("boot %s: %w", spec.Hostname, err)
	}
	log.Info("machine booted", "machine", spec.Hostname)
	select {}
}

// openLogs opens the services' log files before the host's root is left.
func openLogs(spec Spec) ([]*os.File, error) {
	files := make([]*os.File, len(spec.Services))
	for i, service := range spec.Services {
		path := spec.Logs + "/" + service.Name + ".log"
		file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, err
		}
		files[i] = file
	}
	return files, nil
}

func start(service Service, logFile *os.File, children *children, log *slog.Logger) error {
	log.Info("service starts", "service", service.Name)
	exited, err := children.spawn(service, logFile)
	if err != nil {
		return err
	}
	if service.Once {
		select {
		case status := <-exited:
			if status.ExitStatus() != 0 {
				return fmt.Errorf("ended with status %d, signal %d", status.ExitStatus(), status.Signal())
			}
			return nil
		case <-time.After(ServiceTimeout):
			return fmt.Errorf("still running after %s", ServiceTimeout)
		}
	}
	go keep(service, logFile, exited, children, log)
	if service.Socket == "" {
		return nil
	}
	return waitSocket(service.Socket)
}

// keep starts a service again whenever it ends, a second later, as a service
// manager would.
func keep(service Service, logFile *os.File, exited <-chan unix.WaitStatus, children *children, log *slog.Logger) {
	for {
		status := <-exited
		log.Warn("service ended", "service", service.Name, "status", status.ExitStatus(), "signal", int(status.Signal()))
		for {
			time.Sleep(time.Second)
			next, err := children.spawn(service, logFile)
			if err == nil {
				exited = next
				break
			}
			log.Error("service does not start", "service", service.Name, "error", err)
		}
	}
}

func waitSocket(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), ServiceTimeout)
	defer cancel()
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "unix", path)
		if err == nil {
			return conn.Close()
		}
		if ctx.Err() != nil {
			return fmt.Errorf("no listener at %s after %s: %w", path, ServiceTimeout, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
