package cniserver

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"google.golang.org/grpc"

	"github.com/muslin-net/muslin/pkg/cnirpc"
	"github.com/muslin-net/muslin/pkg/cnirpc/client"
	"github.com/muslin-net/muslin/pkg/cnirpc/spoolentry"
	"github.com/muslin-net/muslin/pkg/model"
)

// Options are what a Server works with. The rooms and Node are required.
type Options struct {
	Addresses     Addresses
	PodInterfaces PodInterfaces
	Endpoints     Endpoints
	FormerOwners  FormerOwners
	Pods          Pods
	Node          model.NodeName

	Socket string // default client.DefaultSocket
	Spool  string // default record.DefaultDir
	// InterfacePrefix is how the host interfaces of pods to come are to be called
	// (Felix's interfacePrefix), at most 4 bytes; default cali.
	InterfacePrefix func() string

	// Admit is asked before an ADD begins; an error is the answer. Without it all
	// may begin.
	Admit func() error

	// Status answers the verb STATUS: nil when an ADD could succeed now. An
	// error is "plugin not available" (50) unless it carries another code,
	// such as "limited connectivity" (51). Without it the answer is yes.
	Status func(ctx context.Context) error

	// Holder says who has an address, as "an address of node a", and is empty
	// when this node knows of nobody. Pods of the node are looked at besides.
	// Without it nobody has any.
	Holder func(netip.Addr) string

	// Added hears of a Kubernetes pod whose ADD has just succeeded: what the cluster
	// says of it, and the network configuration. It must not wait for anything.
	Added func(namespace, pod string, info PodInfo, config []byte)

	// Register adds services to the same socket.
	Register []func(*grpc.Server)

	// Observe hears of every call that ended, and of every try of a recorded
	// DEL: its verb, how long it took and its CNI error code, 0 for success.
	Observe func(verb string, took time.Duration, code uint)

	Timeout       time.Duration // of a call that brings no deadline; default 60 s
	UndoTimeout   time.Duration // of what a failed ADD undoes; default 20 s
	DrainInterval time.Duration // between looks at the spool, and tries of a record; default 10 s
	StopTimeout   time.Duration // that calls have to end when Run's ctx does; default 10 s

	Logger *slog.Logger
	Now    func() time.Time // default time.Now
}

// Server is the agent's side of the CNI plugin. It is a task: Run serves, Ready
// is closed when the socket is open, String names it.
type Server struct {
	cnirpc.UnimplementedCNIServer
	o       Options
	locks   locks
	drainer *drainer
	ready   chan struct{}
	once    sync.Once
}

// New makes a server; it does nothing until Run.
func New(o Options) *Server {
	if o.Socket == "" {
		o.Socket = client.DefaultSocket
	}
	if o.Spool == "" {
		o.Spool = spoolentry.DefaultDir
	}
	for d, value := range map[*time.Duration]time.Duration{
		&o.Timeout: time.Minute, &o.UndoTimeout: 20 * time.Second,
		&o.DrainInterval: 10 * time.Second, &o.StopTimeout: 10 * time.Second,
	} {
		if *d == 0 {
			*d = value
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Admit == nil {
		o.Admit = func() error { return nil }
	}
	if o.Added == nil {
		o.Added = func(string, string, PodInfo, []byte) {}
	}
	if o.Observe == nil {
		o.Observe = func(string, time.Duration, uint) {}
	}
	if o.InterfacePrefix == nil {
		o.InterfacePrefix = func() string { return "" }
	}
	if o.Holder == nil {
		o.Holder = func(netip.Addr) string { return "" }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Server{o: o, drainer: newDrainer(), ready: make(chan struct{})}
}

// Ready is closed once the socket is open and recorded DELs have been tried.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// String names the task.
func (s *Server) String() string { return "cniserver" }

func (s *Server) now() time.Time { return s.o.Now() }

// Add serves the verb ADD.
func (s *Server) Add(ctx context.Context, r *cnirpc.Request) (*cnirpc.Response, error) {
	return s.call(ctx, "ADD", r, s.add)
}

// Del serves the verb DEL.
func (s *Server) Del(ctx context.Context, r *cnirpc.Request) (*cnirpc.Response, error) {
	return s.call(ctx, "DEL", r, s.del)
}

// Check serves the verb CHECK.
func (s *Server) Check(ctx context.Context, r *cnirpc.Request) (*cnirpc.Response, error) {
	return s.call(ctx, "CHECK", r, s.check)
}

// Status serves the verb STATUS.
func (s *Server) Status(ctx context.Context, r *cnirpc.Request) (*cnirpc.Response, error) {
	return s.call(ctx, "STATUS", r, s.status)
}

// GC serves the verb GC.
func (s *Server) GC(ctx context.Context, r *cnirpc.Request) (*cnirpc.Response, error) {
	return s.call(ctx, "GC", r, s.gc)
}

type verb func(context.Context, *cnirpc.Request) ([]byte, error)

// call runs a verb within a deadline, logs its end and makes the error one that
// the plugin can print.
func (s *Server) call(ctx context.Context, name string, r *cnirpc.Request, v verb) (*cnirpc.Response, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.o.Timeout)
		defer cancel()
	}
	start := s.now()
	out, err := v(ctx, r)
	took := s.now().Sub(start)
	log := s.o.Logger.With("verb", name, "container", r.GetContainerId(), "args", r.GetArgs(), "took", took)
	if err != nil {
		log.Warn("cni call failed", "code", s.observe(name, took, err), "error", err)
		return nil, cnirpc.ToStatus(err)
	}
	if name != "DEL" { // that is when it is done
		s.observe(name, took, nil)
	}
	if name == "STATUS" {
		log.Debug("cni call done") // runtimes poll it
	} else {
		log.Info("cni call done")
	}
	return &cnirpc.Response{Result: out}, nil
}

// observe tells how a verb ended, and returns the CNI code of it, 0 for success.
func (s *Server) observe(name string, took time.Duration, err error) (code uint) {
	if err != nil {
		code = cnirpc.AsCNI(err, cnirpc.CodeInternal).Code
	}
	s.o.Observe(name, took, code)
	return code
}

func (s *Server) status(ctx context.Context, r *cnirpc.Request) ([]byte, error) {
	if _, err := parseConf(r.GetConfig()); err != nil {
		return nil, err
	}
	if s.o.Status == nil {
		return nil, nil
	}
	if err := s.o.Status(ctx); err != nil {
		e := cnirpc.AsCNI(err, types.ErrPluginNotAvailable)
		return nil, types.NewError(e.Code, fmt.Sprintf("node %s: %s", s.o.Node, e.Msg), e.Details)
	}
	return nil, nil
}
