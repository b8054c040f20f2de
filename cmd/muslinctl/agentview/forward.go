package agentview

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/httpstream" //nolint:staticcheck // what client-go's dialer returns
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport/spdy"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
)

// port is where an agent serves health, metrics and views, on loopback.
const port = "9109"

// ErrOld means that the agent does not know the question.
var ErrOld = errors.New("the agent does not answer this question; it is of an older version")

// Get asks an agent for a path, as in /status, and decodes its JSON.
func (a Agent) Get(ctx context.Context, c *api.Client, path string, into any) error {
	data, err := a.fetch(ctx, c, path)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return fmt.Errorf("ask the agent of node %s: %w", a.Node, err)
	}
	return nil
}

// Text asks an agent for what is no JSON, such as /metrics.
func (a Agent) Text(ctx context.Context, c *api.Client, path string) ([]byte, error) {
	data, err := a.fetch(ctx, c, path)
	if err != nil {
		return nil, fmt.Errorf("ask the agent of node %s: %w", a.Node, err)
	}
	return data, nil
}

func (a Agent) fetch(ctx context.Context, c *api.Client, path string) ([]byte, error) {
	conn, err := a.dial(c.Config)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	stream, err := open(conn)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return stream, nil },
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+port+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, stream.cause(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, stream.cause(err)
	case resp.StatusCode == http.StatusNotFound:
		return nil, ErrOld
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(data)))
	}
	return data, nil
}

// dial upgrades a request to the pod's portforward to streams.
func (a Agent) dial(cfg *rest.Config) (httpstream.Connection, error) {
	own := rest.CopyConfig(cfg)
	own.Timeout = 0
	transport, upgrader, err := spdy.RoundTripperFor(own)
	if err != nil {
		return nil, err
	}
	base, _, err := rest.DefaultServerUrlFor(own)
	if err != nil {
		return nil, err
	}
	at := base.JoinPath("api", "v1", "namespaces", Namespace, "pods", a.Pod, "portforward")
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, &url.URL{Scheme: at.Scheme, Host: at.Host, Path: at.Path})
	conn, _, err := dialer.Dial("portforward.k8s.io")
	if err != nil {
		return nil, fmt.Errorf("forward a port to pod %s: %w", a.Pod, err)
	}
	return conn, nil
}

// open makes the two streams of one forwarded connection: what goes wrong is
// told on the first, the bytes go over the second.
func open(conn httpstream.Connection) (*streamConn, error) {
	h := http.Header{}
	h.Set("port", port)
	h.Set("requestID", "0")
	h.Set("streamType", "error")
	failures, err := conn.CreateStream(h)
	if err != nil {
		return nil, fmt.Errorf("open error stream: %w", err)
	}
	failures.Close() // this side says nothing on it
	h.Set("streamType", "data")
	data, err := conn.CreateStream(h)
	if err != nil {
		return nil, fmt.Errorf("open data stream: %w", err)
	}
	s := &streamConn{Stream: data, failed: make(chan string, 1)}
	go func() {
		text, _ := io.ReadAll(failures) // ends with the connection
		s.failed <- strings.TrimSpace(string(text))
	}()
	return s, nil
}

// streamConn is a stream in the shape of a connection.
type streamConn struct {
	httpstream.Stream
	failed chan string
}

// cause prefers what the far end told.
func (s *streamConn) cause(err error) error {
	select {
	case text := <-s.failed:
		if text != "" {
			return errors.New(text)
		}
	case <-time.After(time.Second):
	}
	return err
}

type nowhere struct{}

func (nowhere) Network() string { return "portforward" }
func (nowhere) String() string  { return "portforward" }

func (*streamConn) LocalAddr() net.Addr              { return nowhere{} }
func (*streamConn) RemoteAddr() net.Addr             { return nowhere{} }
func (*streamConn) SetDeadline(time.Time) error      { return nil }
func (*streamConn) SetReadDeadline(time.Time) error  { return nil }
func (*streamConn) SetWriteDeadline(time.Time) error { return nil }
