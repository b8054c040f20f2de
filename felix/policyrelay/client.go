package policyrelay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/felix/policyrelay/relayrpc"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

const (
	firstAnswer = 30 * time.Second // how long a relay has for all that is needed at first
	leastPause  = 250 * time.Millisecond
	mostPause   = 15 * time.Second
)

var (
	errNoReplica = errors.New("ConfigMap muslin-system/muslin-relay names no policy relay: is MUSLIN_RELAY_ADDR of the controller set?")
	errNoAnswer  = fmt.Errorf("no whole answer within %s", firstAnswer)
)

// Client keeps the View of a node like what a relay has, of what the node needs. Its
// exported fields are set before Run.
type Client struct {
	Node     model.NodeName
	Replicas func(context.Context) (map[string]Replica, error)
	Token    func() (string, error) // for Audience
	File     string                 // where the View is kept over a restart; empty: nowhere
	Logger   *slog.Logger

	dial     func(ctx context.Context, address string) (net.Conn, error) // nil: by TCP
	view     task.Cell[View]
	needs    task.Cell[needed]
	applied  task.Cell[received]
	receiver *receiver
	stored   time.Time // when File was written
	unstored bool      // File is of an older view

	handOvers handOvers
}

// needed is what Need was given; before that nobody knows what is needed.
type needed struct {
	known bool
	list  []policy.Need
}

// View gives what is known, and a channel that is closed once there is more. Before Run
// that is nothing.
func (c *Client) View() (View, <-chan struct{}) {
	v, changed := c.view.Get()
	if v.Known == nil {
		v.Known = map[policy.Need]bool{}
	}
	return v, changed
}

// Need says what is needed from now on. Without any need no relay is called.
func (c *Client) Need(list []policy.Need) { c.needs.Set(needed{true, list}) }

// Applied says that the kernel has a View, or a newer one.
func (c *Client) Applied(v View) { c.applied.Set(v.newest) }

// String names the client as a task.
func (c *Client) String() string { return "policy relay" }

// Run follows a relay until ctx ends, and returns nil then. It begins with the View that
// was kept, and as long as no relay answers it stays as it was.
func (c *Client) Run(ctx context.Context, ready func()) error {
	c.receiver = c.load(newMoment())
	c.view.Set(c.receiver.view)
	ready()
	pause := leastPause
	task.Loop(ctx, func(ctx context.Context) task.Next {
		needs, changed := c.needs.Get()
		if len(needs.list) == 0 {
			if needs.known {
				c.idle()
			}
			return task.Next{Changed: []<-chan struct{}{changed}}
		}
		answered, err := c.try(ctx)
		if answered {
			pause = leastPause
		}
		if err == nil || ctx.Err() != nil {
			return task.Next{After: leastPause}
		}
		c.lose(err)
		after := pause/2 + rand.N(pause) // not all agents at once
		pause = min(2*pause, mostPause)
		return task.Next{After: after}
	})
	c.handOvers.close()
	c.stored = time.Time{} // what a restart finds is what is known now
	c.store(time.Now())
	return nil
}

// idle forgets what nobody needs any more.
func (c *Client) idle() {
	if r := c.receiver; len(r.members) > 0 || len(r.view.Known) > 0 || !r.view.Lost.IsZero() {
		c.receiver = newReceiver(c.Node)
		c.receiver.number, c.receiver.stream = r.number, r.stream
		c.publish()
	}
}

// lose notes since when no relay answers.
func (c *Client) lose(err error) {
	v := &c.receiver.view
	if v.Err = err; v.Lost.IsZero() {
		v.Lost = time.Now()
		c.Logger.Info("no policy relay", "error", err)
	}
	c.view.Set(*v)
}

func (c *Client) publish() {
	c.unstored = true
	c.view.Set(c.receiver.view)
	c.store(time.Now())
}

// need sends what is needed now.
func (c *Client) need(stream relayrpc.Relay_WatchClient, q *relayrpc.Request) error {
	c.view.Set(c.receiver.view)
	if err := stream.Send(q); err != nil {
		return receiveError(stream, err)
	}
	return nil
}

// try follows each of the replicas in turn, in any order, until one has answered.
func (c *Client) try(ctx context.Context) (answered bool, err error) {
	replicas, err := c.Replicas(ctx)
	if err != nil {
		return false, err
	}
	if len(replicas) == 0 {
		return false, errNoReplica
	}
	names := make([]string, 0, len(replicas))
	for name := range replicas {
		names = append(names, name)
	}
	slices.Sort(names)
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	var errs []error
	for _, name := range names {
		answered, err := c.follow(ctx, replicas[name])
		if err != nil {
			err = fmt.Errorf("relay %s at %s: %w", name, replicas[name].Address, err)
		}
		if answered || err == nil || ctx.Err() != nil {
			return answered, err
		}
		errs = append(errs, err)
	}
	return false, errors.Join(errs...)
}

// follow keeps the view like a replica's until that or ctx ends, or nothing is needed.
// answered: it has sent all that was needed at least once.
func (c *Client) follow(ctx context.Context, r Replica) (answered bool, err error) {
	conn, err := c.connect(r)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := relayrpc.NewRelayClient(conn).Watch(ctx)
	if err != nil {
		return false, err
	}
	needs, changed := c.needs.Get()
	c.receiver.begin()
	first := c.receiver.need(needs.list)
	first.Sums, first.Acknowledges = c.receiver.digests(), true
	if err := c.need(stream, first); err != nil {
		return false, err
	}
	late, store := time.NewTimer(firstAnswer), time.NewTicker(storeEvery)
	defer late.Stop()
	defer store.Stop()
	responses, failed := receiveAll(ctx, stream)
	for {
		applied, more := c.applied.Get()
		if err := c.acknowledge(stream, applied); err != nil {
			return answered, err
		}
		select {
		case in := <-responses:
			another, err := c.receiver.receive(in)
			if err != nil {
				return answered, err
			}
			if answered = answered || in.Complete; another {
				c.publish()
			}
		case <-more:
		case <-changed:
			if needs, changed = c.needs.Get(); len(needs.list) == 0 {
				return true, c.leave(stream, failed)
			}
			if err := c.need(stream, c.receiver.need(needs.list)); err != nil {
				return answered, err
			}
		case now := <-store.C:
			if answered {
				c.store(now)
			}
		case <-late.C:
			if !answered {
				return false, errNoAnswer
			}
		case err := <-failed:
			return answered, err
		}
	}
}

// leave says that nothing is needed, so that nobody waits for this agent to come back.
func (c *Client) leave(stream relayrpc.Relay_WatchClient, failed <-chan error) error {
	if err := c.need(stream, c.receiver.need(nil)); err != nil {
		return err
	}
	_ = stream.CloseSend()
	select {
	case err := <-failed:
		c.Logger.Debug("a policy relay is left", "error", err)
	case <-time.After(time.Second):
	}
	return nil
}

// acknowledge says once what of this stream the kernel has.
func (c *Client) acknowledge(stream relayrpc.Relay_WatchClient, applied received) error {
	if applied.stream != c.receiver.stream || applied.number <= c.receiver.acknowledged {
		return nil
	}
	c.receiver.acknowledged = applied.number
	if err := stream.Send(&relayrpc.Request{Acknowledged: applied.number}); err != nil {
		return receiveError(stream, err)
	}
	return nil
}

// receiveError gives why a stream cannot be sent to: what the other end says of it.
func receiveError(stream relayrpc.Relay_WatchClient, err error) error {
	for {
		if _, why := stream.Recv(); why != nil {
			return errors.Join(why, err)
		}
	}
}

// receiveAll hands on what comes until ctx or the stream ends.
func receiveAll(ctx context.Context, stream relayrpc.Relay_WatchClient) (<-chan *relayrpc.Response, <-chan error) {
	responses, failed := make(chan *relayrpc.Response), make(chan error, 1)
	go func() {
		for {
			in, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case responses <- in:
			case <-ctx.Done():
				failed <- ctx.Err()
				return
			}
		}
	}()
	return responses, failed
}

// bearer shows a token to the relay, over TLS only.
type bearer func() (string, error)

// GetRequestMetadata reads the token at each stream: the kubelet renews it.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := b()
	if err != nil {
		return nil, fmt.Errorf("read token for the policy relay: %w", err)
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity is true.
func (b bearer) RequireTransportSecurity() bool { return true }
