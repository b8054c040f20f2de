package policyrelay

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// moment is a time of which a later process of this machine can tell the age, whatever
// the wall clock was set to meanwhile.
type moment struct {
	wall  int64         // Unix time, seconds
	boot  string        // the kernel's boot_id; empty: not known
	since time.Duration // since that boot
}

func newMoment() moment {
	m := moment{wall: time.Now().Unix()}
	var t unix.Timespec
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err == nil && unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) == nil {
		m.boot, m.since = strings.TrimSpace(string(id)), time.Duration(t.Nano())
	}
	return m
}

// age is how old m is at now. Where the kernel was booted since, the wall clock tells;
// what is of later than now is new.
func (m moment) age(now moment) time.Duration {
	if m.boot != "" && m.boot == now.boot {
		return now.since - m.since
	}
	return max(0, time.Duration(now.wall-m.wall)*time.Second)
}
