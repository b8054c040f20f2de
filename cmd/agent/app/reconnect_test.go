package app

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
	"k8s.io/client-go/rest"
)

// TestConnectionsOfLostAddresses: a connection ends when the host loses the address
// that it is from, not when it loses another one, such as a Service's of kube-proxy;
// clients made from one configuration share it.
func TestConnectionsOfLostAddresses(t *testing.T) {
	opened := make(chan string, 10)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened <- c.RemoteAddr().String()
		}
	}
	server.Start()
	defer server.Close()
	cfg := &rest.Config{Host: server.URL}
	conns, err := newAPIConnections(cfg)
	if err != nil {
		t.Fatal(err)
	}
	get := func() {
		t.Helper()
		client, err := rest.HTTPClientFor(cfg)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	host := func(addresses ...string) {
		var l model.Link
		for _, a := range addresses {
			l.Addresses = append(l.Addresses, netip.MustParsePrefix(a))
		}
		conns.host(model.Host{Links: []model.Link{l}})
	}
	host("127.0.0.1/8", "10.96.0.1/32")
	get()
	host("127.0.0.1/8") // a Service's address goes
	get()
	if n := len(opened); n != 1 {
		t.Fatalf("%d connections, want one for both clients, as its address is still there", n)
	}
	host()
	get()
	if n := len(opened); n != 2 {
		t.Errorf("%d connections, want a second one, as the address of the first is gone", n)
	}
	host("127.0.0.1/8") // it is back: nothing ends
	get()
	if n := len(opened); n != 2 {
		t.Errorf("%d connections after an address came", n)
	}
}
