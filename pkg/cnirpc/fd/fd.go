// Package fd reads and writes open files by their numbers, for the CNI plugin,
// which does without package os: its event loop, finalizers and their threads
// take longer to set up than all that the plugin has to do.
//
// Kernel footprint: none of its own; whoever opened a file closes it.
package fd

import (
	"io"
	"syscall"
)

// FD is the number of an open file that blocks. Its errors are a syscall.Errno,
// but for io.EOF.
type FD int

// Read reads what is there, and waits for it.
func (f FD) Read(b []byte) (n int, err error) {
	err = Again(func() (err error) { n, err = syscall.Read(int(f), b); return err })
	if n == 0 && err == nil && len(b) > 0 {
		err = io.EOF
	}
	return max(n, 0), err
}

// Write writes all of b.
func (f FD) Write(b []byte) (done int, err error) {
	for done < len(b) && err == nil {
		var n int
		err = Again(func() (err error) { n, err = syscall.Write(int(f), b[done:]); return err })
		done += max(n, 0)
	}
	return done, err
}

// Again repeats a system call that a signal interrupts.
func Again(call func() error) error {
	for {
		if err := call(); err != syscall.EINTR { //nolint:errorlint // as the kernel gave it
			return err
		}
	}
}

// Failure says which step failed.
type Failure struct {
	Step  string
	Cause error
}

// Error names the step and the cause.
func (f *Failure) Error() string { return f.Step + ": " + f.Cause.Error() }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Cause }
