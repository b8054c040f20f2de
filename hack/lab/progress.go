package lab

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Phase is one step of Up and the wall time it took.
type Phase struct {
	Name     string
	Duration time.Duration
}

// Phases are the steps of Up in the order they ran.
type Phases []Phase

// Total returns the time all phases took together.
func (p Phases) Total() time.Duration {
	var total time.Duration
	for _, phase := range p {
		total += phase.Duration
	}
	return total
}

// String lists the phases, one a line, and the total.
func (p Phases) String() string {
	var b strings.Builder
	for _, phase := range append(p[:len(p):len(p)], Phase{"total", p.Total()}) {
		fmt.Fprintf(&b, "%-22s %7.1fs\n", phase.Name, phase.Duration.Seconds())
	}
	return b.String()
}

// progress shows phases while they run and keeps how long they took. On a
// terminal the line of the running phase counts its seconds in place.
type progress struct {
	out      io.Writer
	terminal bool
	phases   Phases

	mu     sync.Mutex
	detail string
}

func newProgress(out io.Writer) *progress {
	p := &progress{out: out}
	if out == nil {
		p.out = io.Discard
	}
	if file, ok := out.(*os.File); ok {
		_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
		p.terminal = err == nil
	}
	return p
}

// note says what the running phase is busy with.
func (p *progress) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.detail = fmt.Sprintf(format, args...)
}

func (p *progress) phase(name string, do func() error) error {
	p.note("")
	began := time.Now()
	stop := p.tick(name, began)
	err := do()
	stop()
	took := time.Since(began)
	p.phases = append(p.phases, Phase{name, took})
	mark := "ok"
	if err != nil {
		mark = "FAILED"
	}
	p.line(name, took, mark, "\n")
	return err
}

func (p *progress) line(name string, took time.Duration, mark, end string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	begin := ""
	if p.terminal {
		begin = "\r\x1b[K" // over what tick has written
	}
	detail := p.detail
	if detail != "" {
		detail = "  " + detail
	}
	fmt.Fprintf(p.out, "%s%-22s %7.1fs  %s%s%s", begin, name, took.Seconds(), mark, detail, end)
}

// tick shows the running phase on a terminal until stop is called. A log gets
// a line a minute, so that a long build is seen to live.
func (p *progress) tick(name string, began time.Time) (stop func()) {
	every, end := time.Minute, "\n"
	if p.terminal {
		every, end = 200*time.Millisecond, ""
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				p.line(name, time.Since(began), "…", end)
			}
		}
	}()
	return func() { close(done); <-ended }
}
