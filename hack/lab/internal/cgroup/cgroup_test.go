package cgroup

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// joiner makes the test binary a process that joins the cgroup named there
// and waits to be killed.
const joiner = "MUSLIN_CGROUP_TEST_JOIN"

func TestMain(m *testing.M) {
	if name := os.Getenv(joiner); name != "" {
		if err := Join(name); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("joined")
		time.Sleep(time.Hour) // not for ever, which Go ends when nobody could wake it
	}
	m.Run()
}

func TestRemoveEndsWhatRunsInside(t *testing.T) {
	name := fmt.Sprintf("mt-cgroup-%08x", rand.Uint32())
	t.Cleanup(func() { _ = Remove(name) })
	for range 2 { // making it twice is no error
		if err := Create(name); err != nil {
			t.Fatal(err)
		}
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), joiner+"="+name)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var word string
	if _, err := fmt.Fscan(out, &word); err != nil || word != "joined" {
		t.Fatalf("the child said %q, error %v", word, err)
	}
	pids, err := Processes(name)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(pids, []int{child.Process.Pid}) {
		t.Errorf("processes %v, want the child %d", pids, child.Process.Pid)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	for range 2 { // removing the absent is no error
		if err := Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-ended; err == nil {
		t.Error("the child ended by itself, want killed")
	}
	names, err := List(name)
	if err != nil || len(names) != 0 {
		t.Errorf("left cgroups %v, error %v", names, err)
	}
}
