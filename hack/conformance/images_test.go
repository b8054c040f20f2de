package conformance

import (
	"slices"
	"testing"
)

func TestLibraries(t *testing.T) {
	const ldd = `	linux-vdso.so.1 (0x00007ffc)
	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f0a)
	libisc-9.18.49-1-Debian.so => /usr/lib/x86_64-linux-gnu/libisc-9.18.49-1-Debian.so (0x00007f0b)
	/lib64/ld-linux-x86-64.so.2 (0x00007f0c)
`
	want := []string{"/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libisc-9.18.49-1-Debian.so", "/lib64/ld-linux-x86-64.so.2"}
	if got := libraries(ldd); !slices.Equal(got, want) {
		t.Errorf("libraries %q, want %q", got, want)
	}
}
