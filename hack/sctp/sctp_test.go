package sctp

import (
	"testing"
	"time"
)

// What agnhost's porter and connect do with each other. Needs root.
func TestAnswer(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		t.Run(host, func(t *testing.T) {
			at, err := ResolveSCTPAddr("sctp", ":9003")
			if err != nil {
				t.Fatal(err)
			}
			listener, err := ListenSCTP("sctp", at)
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go func() {
				for {
					c, err := listener.AcceptSCTP()
					if err != nil {
						return
					}
					if _, err := c.Write([]byte("foo")); err != nil {
						t.Error(err)
					}
					c.Close()
				}
			}()
			to, err := ResolveSCTPAddr("sctp", host+":9003")
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				ask(t, to)
			}
		})
	}
}

func ask(t *testing.T, to *SCTPAddr) {
	began := time.Now()
	c, err := DialSCTP("sctp", nil, to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("hostname\n")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil || string(b[:n]) != "foo" {
		t.Fatalf("answer %q, %v", b[:n], err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(began))
}
