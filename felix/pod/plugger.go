package pod

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/pkg/model"
)

// Options are the settings of a Plugger.
type Options struct {
	NetNS string // path of the node's network namespace; empty: the process's own
	// ProcSys is where /proc/sys can be written; empty: /proc/sys. In a
	// container it is a mount of the host's.
	ProcSys string
	Logger  *slog.Logger // nil: slog.Default()
}

// Plugger plugs pods in and out. Its methods may be used from any goroutine.
type Plugger struct {
	log     *slog.Logger
	procSys string
	ns      *nl.NS
	conn    *nl.Conn

	mu      sync.Mutex // guards pending and making
	pending []*removal
	making  map[string]int // names of node's ends that are being attached, with how often
	turn    sync.Mutex     // held by whoever deletes
}

// New opens a socket in the node's namespace.
func New(o Options) (*Plugger, error) {
	ns, err := nl.Open(o.NetNS)
	if err != nil {
		return nil, err
	}
	conn, err := nl.Dial(ns, unix.NETLINK_ROUTE)
	if err != nil {
		ns.Close()
		return nil, err
	}
	p := &Plugger{making: map[string]int{}, log: cmp.Or(o.Logger, slog.Default()), procSys: cmp.Or(o.ProcSys, "/proc/sys"), ns: ns, conn: conn}
	return p, nil
}

// Close closes the socket; the pods stay plugged in.
func (p *Plugger) Close() error {
	p.conn.Close()
	p.ns.Close()
	return nil
}

// Attach plugs a pod in. It may be repeated for the same container: what is as
// it should be stays, what is missing is put back. What an older sandbox of the
// pod left is replaced; a link of the same name that is another pod's stays, and
// the error is ErrNameTaken. After an error nothing is left.
func (p *Plugger) Attach(ctx context.Context, s Spec) (model.Endpoint, error) {
	e, err := p.attach(ctx, s)
	if err != nil {
		return model.Endpoint{}, fmt.Errorf("attach pod %s: %w", s, err)
	}
	return e, nil
}

func (p *Plugger) attach(ctx context.Context, s Spec) (model.Endpoint, error) {
	if err := errors.Join(s.valid(), ctx.Err()); err != nil {
		return model.Endpoint{}, err
	}
	inside, err := p.enter(s.NetNS)
	if err != nil {
		return model.Endpoint{}, err
	}
	defer inside.Close()
	defer p.make(s.HostInterface)()
	host, err := p.pair(ctx, s, inside)
	if err != nil {
		return model.Endpoint{}, err
	}
	err = errors.Join(p.setHost(s, host), p.setPod(s, inside))
	if err == nil {
		err = p.waitUsable(ctx, s, inside)
	}
	if err != nil {
		return model.Endpoint{}, errors.Join(err, p.remove(context.WithoutCancel(ctx), host))
	}
	return s.endpoint(), nil
}

// make notes that a link is in the making, until the returned function is called.
func (p *Plugger) make(name string) (made func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.making[name]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.making[name]--; p.making[name] == 0 {
			delete(p.making, name)
		}
	}
}

// pair returns the index of the host's end, and makes the pair unless the one
// that is there is this container's.
func (p *Plugger) pair(ctx context.Context, s Spec, inside *podSide) (int, error) {
	old, err := p.conn.GetLink(s.HostInterface)
	switch {
	case err == nil:
		want, _ := s.alias()
		_, missing := inside.conn.GetLink(s.Interface)
		if old.Alias == want && missing == nil {
			return old.Index, nil
		}
		if !p.mayReplace(old, s) {
			return 0, fmt.Errorf("%w: link %s is of %s", ErrNameTaken, s.HostInterface, cmp.Or(old.Alias, "somebody who left no alias"))
		}
		if err := p.remove(ctx, old.Index); err != nil {
			return 0, fmt.Errorf("remove old link %s: %w", s.HostInterface, err)
		}
	case !errors.Is(err, unix.ENODEV):
		return 0, err
	}
	if err := p.create(s, inside); err != nil {
		return 0, err
	}
	link, err := p.conn.GetLink(s.HostInterface)
	return link.Index, err
}

// ErrNameTaken says that the node's end would have the name of another pod's.
// Names are short enough for somebody who chooses a pod's name to find one that
// collides (44 bits of SHA-1), and must not cost the other its link.
var ErrNameTaken = errors.New("host interface name collides")

// mayReplace says whether a link is what an older sandbox of the same pod, or of
// the container, left behind, or what nobody came to own. An alias that is cut
// does not say whose it is.
func (p *Plugger) mayReplace(l model.Link, s Spec) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.Alias == "" {
		return !l.AdminUp && p.making[l.Name] == 1 // by whoever asks
	}
	e, ours := parseAlias(l.Alias, l.Name)
	samePod := s.Pod != "" && e.Namespace == s.Namespace && e.Pod == s.Pod && !strings.HasSuffix(l.Alias, cut)
	return ours && (samePod || e.ContainerID == s.ContainerID)
}

// podSide is the pod's namespace with a socket in it.
type podSide struct {
	ns   *nl.NS
	conn *nl.Conn
}

func (p *Plugger) enter(path string) (*podSide, error) {
	ns, err := nl.Open(path)
	if err != nil {
		return nil, fmt.Errorf("pod: %w", err)
	}
	same, err := ns.Same(p.ns)
	if err == nil && same {
		err = errors.New("it is the node's own")
	}
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("network namespace %s: %w", path, err)
	}
	conn, err := nl.Dial(ns, unix.NETLINK_ROUTE)
	if err != nil {
		ns.Close()
		return nil, err
	}
	return &podSide{ns, conn}, nil
}

func (s *podSide) Close() {
	s.conn.Close()
	s.ns.Close()
}

// writeSysctl writes a value as the namespace sees it: below net/ the kernel
// shows each thread the files of its own namespace.
func (p *Plugger) writeSysctl(ns *nl.NS, key, value string) error {
	return ns.Do(func() error {
		return os.WriteFile(filepath.Join(p.procSys, key), []byte(value), 0)
	})
}

// List returns the pods that are plugged in, as the kernel knows them, sorted
// by the name of the host's interface.
func (p *Plugger) List(ctx context.Context) ([]model.Endpoint, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var out []model.Endpoint
	err := p.conn.DumpAll(unix.RTM_GETLINK, unix.SizeofIfInfomsg, func() { out = nil }, func(b []byte) {
		l := nl.ParseLink(b)
		if e, ok := parseAlias(l.Alias, l.Name); ok {
			out = append(out, e)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	slices.SortFunc(out, func(a, b model.Endpoint) int { return cmp.Compare(a.HostInterface, b.HostInterface) })
	return out, nil
}

func (p *Plugger) readSysctl(ns *nl.NS, key string) (string, error) {
	var b []byte
	err := ns.Do(func() (err error) {
		b, err = os.ReadFile(filepath.Join(p.procSys, key))
		return err
	})
	return strings.TrimSpace(string(b)), err
}
