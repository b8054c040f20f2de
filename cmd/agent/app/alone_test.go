package app

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A second agent of a node refuses to run, and takes over when the first has ended.
// Where no lock can be made the agent runs all the same.
func TestOneAgentANode(t *testing.T) {
	c := Config{Node: "n1", Socket: filepath.Join(t.TempDir(), "run", "agent.sock"), Logger: slog.New(slog.DiscardHandler)}
	first, err := c.alone(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), Config{Socket: c.Socket, Logger: c.Logger, patience: time.Millisecond}); !errors.Is(err, errNotAlone) {
		t.Errorf("beside another: %v", err)
	}
	time.AfterFunc(10*time.Millisecond, first)
	second, err := c.alone(t.Context(), time.Minute)
	if err != nil {
		t.Fatalf("after the first: %v", err)
	}
	second()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.Socket = filepath.Join(file, "agent.sock")
	if _, err := c.alone(t.Context(), 0); err != nil {
		t.Errorf("without a lock: %v", err)
	}
}
