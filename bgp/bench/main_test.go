package bench

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"syscall"
	"testing"

	"github.com/muslin-net/muslin/cmd/agent/app"
)

const (
	// envAgent makes this process an agent: the directory with its kubeconfig.
	envAgent = "MUSLIN_BENCH_AGENT"
	// envProfile names a directory for CPU and heap profiles of the agent.
	envProfile = "MUSLIN_BENCH_PROFILE"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envAgent); dir != "" {
		if err := runAgent(dir); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// runAgent does what cmd/agent does, with its files in dir.
func runAgent(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if to := os.Getenv(envProfile); to != "" {
		end, err := profile(to)
		if err != nil {
			return err
		}
		defer end()
	}
	return app.Run(ctx, app.Config{
		Node: "bench", Kubeconfig: filepath.Join(dir, "kubeconfig"), HTTPAddr: "127.0.0.1:9109", ProcSys: "/proc/sys",
		Socket: filepath.Join(dir, "agent.sock"), Spool: filepath.Join(dir, "spool"), Version: "bench",
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
}

// profile begins a CPU profile; end writes it and one of the heap.
func profile(dir string) (end func(), err error) {
	cpu, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err != nil {
		return nil, err
	}
	heap, err := os.Create(filepath.Join(dir, "heap.pprof"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = pprof.Lookup("allocs").WriteTo(heap, 0)
		_, _ = cpu.Close(), heap.Close()
	}, nil
}
