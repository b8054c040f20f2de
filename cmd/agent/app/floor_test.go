package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// floor is a part of ADD that no plugin of this design can do without, done as
// barely as it can be: what an ADD takes beyond the floors is Muslin's own.
type floor struct {
	name string
	do   func() error
}

// floors are the start of the plugin's binary, which only says its versions; and
// the two writes of an address, block and handle at the same time, by a client
// that knows nothing but their bytes.
func (n *benchNode) floors(b *testing.B) []floor {
	b.Helper()
	transport, err := rest.TransportFor(n.server.Config())
	if err != nil {
		b.Fatal(err)
	}
	w := &bareWriter{client: &http.Client{Transport: transport}}
	if w.version, err = w.send(http.MethodPost, "ipamblocks", w.block("")); err != nil {
		b.Fatal(err)
	}
	return []floor{
		{"exec", func() error {
			cmd := exec.Command(n.cni[0].path)
			cmd.Env = []string{"CNI_COMMAND=VERSION"}
			return cmd.Run()
		}},
		{"api", w.write},
	}
}

// bareWriter writes one block and new handles.
type bareWriter struct {
	client *http.Client
	count  atomic.Int64

	mu      sync.Mutex // writes of the block share one turn, as the allocator's do
	version string
	waiting []chan error
	busy    bool
}

func (w *bareWriter) write() error {
	handle := make(chan error, 1)
	go func() {
		name := fmt.Sprintf("floor.%d", w.count.Add(1))
		_, err := w.send(http.MethodPost, "ipamhandles", fmt.Sprintf(
			`{"apiVersion":"projectcalico.org/v3","kind":"IPAMHandle","metadata":{"name":%q},"spec":{"handleID":%q,"block":{"10.99.0.0/26":1},"deleted":false}}`, name, name))
		handle <- err
	}()
	if err := w.shareBlock(); err != nil {
		return err
	}
	return <-handle
}

// shareBlock writes the block for all who wait for it.
func (w *bareWriter) shareBlock() error {
	done := make(chan error, 1)
	w.mu.Lock()
	w.waiting = append(w.waiting, done)
	lead := !w.busy
	w.busy = true
	w.mu.Unlock()
	for lead {
		w.mu.Lock()
		batch := w.waiting
		w.waiting = nil
		lead = len(batch) > 0
		w.busy = lead
		w.mu.Unlock()
		if !lead {
			break
		}
		version, err := w.send(http.MethodPut, "ipamblocks/10-99-0-0-26", w.block(w.version))
		w.version = version
		for _, c := range batch {
			c <- err
		}
	}
	return <-done
}

// block is one of 64 addresses of which one is taken.
func (w *bareWriter) block(version string) string {
	free := make([]string, 63)
	for i := range free {
		free[i] = fmt.Sprint(i + 1)
	}
	return fmt.Sprintf(`{"apiVersion":"projectcalico.org/v3","kind":"IPAMBlock","metadata":{"name":"10-99-0-0-26","resourceVersion":%q,"managedFields":[{}]},`+
		`"spec":{"cidr":"10.99.0.0/26","affinity":"host:floor","allocations":[0%s],"unallocated":[%s],"attributes":[{"handle_id":"floor","secondary":{"node":"floor","namespace":"default","pod":"floor","timestamp":%q}}],`+
		`"sequenceNumber":%d,"deleted":false,"strictAffinity":false}}`,
		version, strings.Repeat(",null", 63), strings.Join(free, ","), time.Now(), w.count.Load())
}

// send makes one request and gives the resourceVersion of the answer.
func (w *bareWriter) send(method, path, body string) (string, error) {
	req, err := http.NewRequestWithContext(context.Background(), method,
		"https://127.0.0.1:6443/apis/projectcalico.org/v3/"+path+"?fieldValidation=Ignore", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
	resp, err := w.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= http.StatusMultipleChoices {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(text))
	}
	if err != nil {
		return "", err
	}
	var answer struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
	}
	err = json.Unmarshal(text, &answer)
	return answer.Metadata.ResourceVersion, err
}

// turn does a floor as often as a plugin's turn has pods.
func (f floor) turn(b *testing.B, w *benchWorkers, count int, r *benchResult) {
	b.Helper()
	took := make([]time.Duration, count)
	begin := time.Now()
	w.do(count, func(i int) {
		start := time.Now()
		if err := f.do(); err != nil {
			b.Errorf("floor %s: %v", f.name, err)
		}
		took[i] = time.Since(start)
	})
	r.took["ADD"] = append(r.took["ADD"], took...)
	r.elapsed["ADD"] += time.Since(begin)
}
