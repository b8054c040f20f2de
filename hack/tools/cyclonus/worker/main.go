// Command worker stands in for cyclonus' own in pods: it tries all that it is asked for at once, by itself, where that
// one starts agnhost for each, which is most of what a case would cost. Its argument and its answer are cyclonus' JSON.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// timeout bounds a try. Half of the cases wait for it; a machine with more to do than to run a suite needs some of it.
const timeout = 3 * time.Second

// request is what cyclonus asks for, result what it wants to read.
type request struct {
	Key, Protocol, Host string
	Port                int
}

type result struct {
	Request request
	Output  string
	Error   string // empty: it answered
}

func main() {
	jobs := flag.String("jobs", "", "what to try: JSON with a list of Requests")
	flag.Parse()
	var batch struct{ Requests []request }
	if err := json.Unmarshal([]byte(*jobs), &batch); err != nil {
		fmt.Fprintln(os.Stderr, "worker: -jobs:", err)
		os.Exit(1)
	}
	results := make([]result, len(batch.Requests))
	var all sync.WaitGroup
	for i, r := range batch.Requests {
		results[i].Request = r
		all.Go(func() {
			if err := r.try(); err != nil {
				results[i].Error = err.Error()
			}
		})
	}
	all.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

// try connects by TCP, or by UDP sends one packet and waits for the answer, as agnhost does.
func (r request) try() error {
	network := strings.ToLower(r.Protocol)
	conn, err := net.DialTimeout(network, net.JoinHostPort(r.Host, strconv.Itoa(r.Port)), timeout)
	if err != nil || network == "tcp" {
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("hostname\n")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1024))
	return err
}
