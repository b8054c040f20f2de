package app

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

const (
	// lastPatience is how long a start waits for the API server before the state
	// on disk is in force: well below the time that peers keep a restarting
	// node's routes (120 s).
	lastPatience = 10 * time.Second
	// lastInterval is the time between two writes of a state that changes, lastAnew
	// that after which one that does not is written again: its age tells how long
	// no agent has run with it. Beyond lastAge it is not used.
	lastInterval = 5 * time.Second
	lastAnew     = 10 * time.Minute
	lastAge      = 7 * 24 * time.Hour
)

// lastState keeps what the cluster was last known to be on disk. An agent that
// starts and cannot reach the API server speaks BGP and keeps the kernel's routes
// by it, until it has reached it: other nodes keep theirs to this one, and the
// way to the API server may be one that BGP has to learn first.
//
// Nothing is deleted on its word (Snapshot.Synced is false), and no pod starts.
// What the node announces of its own follows the pods that run: see ofPods.
type lastState struct {
	path     string
	node     model.NodeName
	log      *slog.Logger
	patience time.Duration
	problems problemList

	mu      sync.Mutex // one of use and release at a time
	inForce task.Cell[*savedState]
	open    chan struct{} // closed once the state on disk is in force
	over    chan struct{} // closed once the cluster's own is
}

func newLastState(path string, node model.NodeName, log *slog.Logger) *lastState {
	return &lastState{
		path: path, node: node, log: log, patience: lastPatience, problems: problemList{log: log},
		open: make(chan struct{}), over: make(chan struct{}),
	}
}

// ofPods leaves out what of a node's own is there for no running pod: a block may
// be another node's by now. A pod's address that the state knows no block of, since
// it is newer, is announced by itself, as a borrowed one is.
func ofPods(s model.Snapshot, self model.NodeName, live []netip.Addr) model.Snapshot {
	s.Blocks = slices.DeleteFunc(slices.Clone(s.Blocks), func(b model.Block) bool {
		return b.Node == self && !slices.ContainsFunc(live, b.CIDR.Contains)
	})
	s.Borrowed = slices.DeleteFunc(slices.Clone(s.Borrowed), func(p netip.Prefix) bool { return !slices.ContainsFunc(live, p.Contains) })
	for _, a := range live {
		own := slices.ContainsFunc(s.Blocks, func(b model.Block) bool { return b.Node == self && b.CIDR.Contains(a) })
		inPool := slices.ContainsFunc(s.Pools, func(p model.Pool) bool { return p.CIDR.Contains(a) })
		if p := netip.PrefixFrom(a, a.BitLen()); inPool && !own && !slices.Contains(s.Borrowed, p) {
			s.Borrowed = append(s.Borrowed, p)
		}
	}
	s.Workloads = slices.DeleteFunc(slices.Clone(s.Workloads), func(w model.Workload) bool {
		return !slices.ContainsFunc(w.Addresses, func(a netip.Addr) bool { return slices.Contains(live, a) })
	})
	return s
}

// run puts the state on disk in force if the cluster is not known in time, and
// keeps the file from then on; gather gives the state as the cluster is known.
func (l *lastState) run(cluster <-chan struct{}, gather func() gathered) func(context.Context, func()) error {
	return func(ctx context.Context, ready func()) error {
		ready()
		select {
		case <-ctx.Done():
			return nil
		case <-cluster:
		case <-time.After(l.patience):
			l.use()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.over:
		}
		l.keep(ctx, gather)
		return nil
	}
}

// use reads the file and puts it in force, or says why not.
func (l *lastState) use() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.over:
		return // it has just been reached
	default:
	}
	saved, err := readState(l.path, l.node, time.Now())
	ref := model.Ref{Kind: "Node", Name: string(l.node)}
	if err != nil {
		l.problems.set([]model.Problem{{Object: ref, Field: l.path, Reason: "NoLastState",
			Message: fmt.Sprintf("the API server cannot be reached, and there is no state of before to go on with: %v", err)}})
		return
	}
	l.inForce.Set(&saved)
	l.problems.set([]model.Problem{{Object: ref, Field: l.path, Reason: "LastState",
		Message: "the API server cannot be reached: BGP and routes are by the state of " + saved.Time.UTC().Format(time.RFC3339) + ", and no pod can start"}})
	close(l.open)
}

// keep writes the state whenever it is another one, until ctx ends.
func (l *lastState) keep(ctx context.Context, gather func() gathered) {
	var written [sha256.Size]byte
	var at time.Time
	task.Loop(ctx, func(ctx context.Context) task.Next {
		in := gather()
		text, sum, err := encodeState(in.snapshot, l.node, time.Now())
		if err == nil && (sum != written || time.Since(at) >= lastAnew) {
			if err = writeState(l.path, text); err == nil {
				written, at = sum, time.Now()
			}
		}
		l.tell(err)
		pause(ctx, lastInterval)
		return task.Next{After: lastAnew, Changed: in.ofBGP}
	})
}

func (l *lastState) tell(err error) {
	var out []model.Problem
	if err != nil {
		out = []model.Problem{{Object: model.Ref{Kind: "Node", Name: string(l.node)}, Field: l.path, Reason: fileNotWritten,
			Message: fmt.Sprintf("%v: an agent that starts without the API server cannot go on with it; make room, or the directory writable", err)}}
	}
	l.problems.set(out)
}

// release is the task that later ones wait behind: it is ready once all of known
// are, and the cluster's own state is in force again.
func (l *lastState) release(known ...<-chan struct{}) task.Task {
	return task.Func("cluster in force", func(ctx context.Context, ready func()) error {
		for _, k := range known {
			select {
			case <-ctx.Done():
				return nil
			case <-k:
			}
		}
		l.end()
		ready()
		<-ctx.Done()
		return nil
	})
}

// end puts the cluster's own state in force.
func (l *lastState) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.inForce.Value()
	if l.inForce.Set(nil) {
		l.log.Info("cluster known again", "lastState", old.Time)
	}
	l.problems.set(nil)
	close(l.over)
}

// soft is a task that runs once after is closed, and that later ones do not wait
// for while the state on disk is in force.
func (l *lastState) soft(t task.Task, after <-chan struct{}) task.Task {
	return &softTask{Task: t, after: after, open: l.open, ready: make(chan struct{})}
}

type softTask struct {
	task.Task
	after, open <-chan struct{}
	ready       chan struct{}
}

func (s *softTask) Ready() <-chan struct{} { return s.ready }

func (s *softTask) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	wg.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-s.Task.Ready():
		case <-s.open:
		}
		close(s.ready)
	})
	select {
	case <-ctx.Done():
		return nil
	case <-s.after:
	}
	return s.Task.Run(ctx)
}

// nothingAwaited is closed.
var nothingAwaited = func() <-chan struct{} { c := make(chan struct{}); close(c); return c }()
