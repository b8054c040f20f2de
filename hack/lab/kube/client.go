package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"sigs.k8s.io/yaml"
)

// client is as much of a Kubernetes client as the lab itself needs: JSON
// over HTTPS, no caches and no types.
type client struct {
	server string
	http   http.Client
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// newClient reads a kubeconfig as the lab writes it: one cluster, one user,
// everything embedded. A nil dial is the usual one.
func newClient(kubeconfig []byte, dial dialFunc) (*client, error) {
	var config struct {
		Clusters []struct {
			Cluster struct {
				Server string `json:"server"`
				CA     []byte `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Cert []byte `json:"client-certificate-data"`
				Key  []byte `json:"client-key-data"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := yaml.Unmarshal(kubeconfig, &config); err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	if len(config.Clusters) != 1 || len(config.Users) != 1 {
		return nil, errors.New("read kubeconfig: want one cluster and one user")
	}
	pair, err := tls.X509KeyPair(config.Users[0].User.Cert, config.Users[0].User.Key)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(config.Clusters[0].Cluster.CA) {
		return nil, errors.New("read kubeconfig: no certificate authority")
	}
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
		DialContext:       dial,
		ForceAttemptHTTP2: true,
		Proxy:             nil,
	}
	return &client{
		server: config.Clusters[0].Cluster.Server,
		http:   http.Client{Transport: transport, Timeout: 30 * time.Second},
	}, nil
}

// apiError is an answer other than 2xx.
type apiError struct {
	code    int
	message string
}

func (e *apiError) Error() string { return fmt.Sprintf("%d: %s", e.code, e.message) }

// apiStatus returns the HTTP status of an error of do, or 0.
func apiStatus(err error) int {
	var status *apiError
	if errors.As(err, &status) {
		return status.code
	}
	return 0
}

// Media types of bodies.
const (
	plainJSON      = "application/json"
	mergePatch     = "application/merge-patch+json"
	strategicPatch = "application/strategic-merge-patch+json"
)

// do sends one request; body and answer are JSON and may be nil. PATCH is a
// merge patch.
func (c *client) do(ctx context.Context, method, path string, body, answer any) error {
	mediaType := plainJSON
	if method == http.MethodPatch {
		mediaType = mergePatch
	}
	return c.send(ctx, method, path, mediaType, body, answer)
}

// get reads one object, if it is there.
func (c *client) get(ctx context.Context, path string, answer any) (found bool, err error) {
	err = c.do(ctx, http.MethodGet, path, nil, answer)
	if apiStatus(err) == http.StatusNotFound {
		return false, nil
	}
	return err == nil, err
}

// patchStrategic sends a patch that merges lists by their keys, such as
// conditions by their type.
func (c *client) patchStrategic(ctx context.Context, path string, body any) error {
	return c.send(ctx, http.MethodPatch, path, strategicPatch, body, nil)
}

func (c *client) send(ctx context.Context, method, path, mediaType string, body, answer any) error {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		reader = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.server+path, reader)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("Content-Type", mediaType)
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode/100 != 2 {
		var status struct{ Message string }
		_ = json.Unmarshal(data, &status) // an answer that is no Status has no message
		err = &apiError{response.StatusCode, status.Message}
	}
	if err == nil && answer != nil {
		err = json.Unmarshal(data, answer)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}
