package policyrelay

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/muslin-net/muslin/felix/policyrelay/relayrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// handOvers are an agent's calls of that name.
type handOvers struct {
	mu       sync.Mutex
	replicas map[string]Replica // as they were found last
	found    time.Time
	conns    map[Replica]*grpc.ClientConn
	silent   map[Replica]time.Time // since when one does not answer
}

const (
	replicasFor = 10 * time.Second       // how long they need not be looked for again
	askAgain    = 250 * time.Millisecond // whether an agent is back, or a replica
)

// HandOver waits until no agent takes addresses of a pod of this node for those of pods
// that had them in the minute before: every replica has to say so. An error is that ctx
// ended before, with what was waited for.
func (c *Client) HandOver(ctx context.Context, namespace, pod string, addrs []netip.Addr) error {
	q := &relayrpc.HandOverRequest{Namespace: namespace, Name: pod}
	for _, a := range addrs {
		q.Addresses = append(q.Addresses, a.AsSlice())
	}
	for {
		away, silent, err := c.handOver(ctx, q)
		if err == nil && silent == nil && len(away) == 0 {
			return nil
		}
		if first := len(q.Nodes) == 0 && len(away) > 0; !first { // the other replicas may have them
			select {
			case <-time.After(askAgain):
			case <-ctx.Done():
				return fmt.Errorf("agents of nodes %v: %w", away, cmp.Or(err, silent, ctx.Err()))
			}
		}
		q.Nodes = away
	}
}

// handOver asks every replica: away are nodes that none of them has, silent is why one has not answered.
func (c *Client) handOver(ctx context.Context, q *relayrpc.HandOverRequest) (away []string, silent, err error) {
	replicas, err := c.known(ctx)
	if err != nil {
		return q.Nodes, nil, err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	absent := map[string]int{}
	answers := 0
	for name, r := range replicas {
		wg.Go(func() {
			nodes, answered, err := c.callReplica(ctx, r, q)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent = fmt.Errorf("relay %s at %s: %w", name, r.Address, err)
				return
			}
			if answered {
				answers++
			}
			for _, n := range nodes {
				absent[n]++
			}
		})
	}
	wg.Wait()
	for n, times := range absent {
		if len(q.Nodes) == 0 || times == answers {
			away = append(away, n)
		}
	}
	slices.Sort(away)
	return away, silent, nil
}

// known gives the replicas, which are looked for now and then.
func (c *Client) known(ctx context.Context) (map[string]Replica, error) {
	h := &c.handOvers
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.found) < replicasFor {
		return h.replicas, nil
	}
	found, err := c.Replicas(ctx)
	if err != nil {
		return nil, err
	}
	h.replicas, h.found = found, time.Now()
	of := map[Replica]bool{}
	for _, r := range found {
		of[r] = true
	}
	for r, conn := range h.conns {
		if !of[r] {
			_ = conn.Close()
			delete(h.conns, r)
		}
	}
	for r := range h.silent {
		if !of[r] {
			delete(h.silent, r)
		}
	}
	return found, nil
}

// callReplica asks one replica. One of a release without the call is not waited for, nor one that has not
// answered for handOverFor.
func (c *Client) callReplica(ctx context.Context, r Replica, q *relayrpc.HandOverRequest) (nodes []string, answered bool, err error) {
	conn, err := c.connection(r)
	if err != nil {
		return nil, false, err
	}
	out, err := relayrpc.NewRelayClient(conn).HandOver(ctx, q)
	h := &c.handOvers
	h.mu.Lock()
	defer h.mu.Unlock()
	switch code := status.Code(err); {
	case err == nil, code == codes.Unimplemented:
		delete(h.silent, r)
		return out.GetNodes(), err == nil, nil
	case code != codes.Unavailable:
		return nil, false, err
	case h.silent[r].IsZero():
		h.silent[r] = time.Now()
	case time.Since(h.silent[r]) > handOverFor:
		return nil, false, nil
	}
	h.found = time.Time{} // it may be gone for good
	return nil, false, err
}

func (c *Client) connection(r Replica) (*grpc.ClientConn, error) {
	h := &c.handOvers
	h.mu.Lock()
	defer h.mu.Unlock()
	if conn := h.conns[r]; conn != nil {
		return conn, nil
	}
	conn, err := c.connect(r, grpc.WithIdleTimeout(time.Minute))
	if err != nil {
		return nil, err
	}
	if h.conns == nil {
		h.conns, h.silent = map[Replica]*grpc.ClientConn{}, map[Replica]time.Time{}
	}
	h.conns[r] = conn
	return conn, nil
}

// close ends the connections.
func (h *handOvers) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, conn := range h.conns {
		_ = conn.Close()
	}
	h.conns = nil
}

// connect makes a connection to a replica, and to nobody else.
func (c *Client) connect(r Replica, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	trust, err := r.trust()
	if err != nil {
		return nil, err
	}
	options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(trust)),
		grpc.WithPerRPCCredentials(bearer(c.Token)), grpc.WithNoProxy(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}))
	if c.dial != nil {
		options = append(options, grpc.WithContextDialer(c.dial))
	}
	conn, err := grpc.NewClient("passthrough:///"+r.Address, options...)
	if err != nil {
		return nil, fmt.Errorf("make connection: %w", err)
	}
	return conn, nil
}
