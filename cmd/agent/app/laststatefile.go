package app

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/muslin-net/muslin/pkg/cnirpc/spoolentry"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

// stateFormat is the format of the file. One of another format is not read: the
// first minute with the API server writes it anew.
const stateFormat = 1

// savedState is the file: a snapshot, with what JSON cannot hold of it beside.
//
// BGP passwords are in it, in clear: without them the sessions that need it most,
// with the routers, would not come up. It is root's alone (0600), as what the
// kernel has of the same passwords is.
type savedState struct {
	Format    int
	Node      model.NodeName
	Time      time.Time
	Snapshot  model.Snapshot
	Selectors map[string]string // by place; see secretsAndSelectors
	Passwords map[string]string
}

// places are the selectors and passwords of a snapshot, by where they are.
func places(s *model.Snapshot) (selectors map[string]*model.Selector, passwords map[string]*model.PasswordRef) {
	selectors, passwords = map[string]*model.Selector{}, map[string]*model.PasswordRef{}
	for i := range s.Pools {
		p, at := &s.Pools[i], "IPPool "+s.Pools[i].Name
		selectors[at+" nodes"], selectors[at+" namespaces"] = &p.NodeSelector, &p.NamespaceSelector
	}
	for i := range s.Peers {
		p, at := &s.Peers[i], "BGPPeer "+s.Peers[i].Name
		selectors[at+" nodes"], selectors[at+" peers"], selectors[at+" workloads"] = &p.NodeSelector, &p.PeerSelector, &p.LocalWorkloadSelector
		if p.Password != nil {
			passwords[at] = p.Password
		}
	}
	for i := range s.Filters {
		selectors["BGPFilter "+s.Filters[i].Name+" services"] = &s.Filters[i].Services
	}
	for i := range s.BGP {
		if p := s.BGP[i].MeshPassword; p != nil {
			passwords["BGPConfiguration "+s.BGP[i].Name] = p
		}
	}
	return selectors, passwords
}

// encodeState gives the text of the file, and the sum of what is in it but for the
// time. What BGP and routes do not ask for is left out.
func encodeState(s model.Snapshot, node model.NodeName, now time.Time) (text []byte, sum [sha256.Size]byte, err error) {
	s.Synced, s.Namespaces = false, nil
	out := savedState{Format: stateFormat, Node: node, Selectors: map[string]string{}, Passwords: map[string]string{}}
	selectors, passwords := places(&s)
	for at, p := range passwords {
		out.Passwords[at] = p.Value.Reveal()
	}
	for at, p := range selectors {
		if *p == nil {
			continue
		}
		out.Selectors[at] = (*p).String()
		if _, err := selector.Parse(out.Selectors[at]); err != nil {
			out.Selectors[at] = "!all()" // as it is until somebody mends it
		}
	}
	out.Snapshot = withoutSelectors(s)
	if text, err = json.Marshal(out); err != nil {
		return nil, sum, fmt.Errorf("encode state: %w", err)
	}
	sum = sha256.Sum256(text)
	out.Time = now
	text, err = json.Marshal(out)
	return text, sum, err
}

// withoutSelectors leaves alone what s shares.
func withoutSelectors(s model.Snapshot) model.Snapshot {
	s.Pools, s.Peers = append([]model.Pool(nil), s.Pools...), append([]model.BGPPeer(nil), s.Peers...)
	s.Filters = append([]model.BGPFilter(nil), s.Filters...)
	selectors, _ := places(&s)
	for _, p := range selectors {
		*p = nil
	}
	return s
}

// readState reads the file of a node, not older than lastAge.
func readState(path string, node model.NodeName, now time.Time) (savedState, error) {
	var out savedState
	text, err := os.ReadFile(path)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(text, &out); err != nil {
		return out, fmt.Errorf("%s cannot be read: %w", path, err)
	}
	switch {
	case out.Format != stateFormat:
		return out, fmt.Errorf("%s has format %d, and this release reads %d", path, out.Format, stateFormat)
	case out.Node != node:
		return out, fmt.Errorf("%s is of node %s", path, out.Node)
	case now.Sub(out.Time) > lastAge:
		return out, fmt.Errorf("%s is of %s, too long ago", path, out.Time.UTC().Format(time.RFC3339))
	}
	selectors, passwords := places(&out.Snapshot)
	for at, p := range passwords {
		p.Value = model.NewSecret(out.Passwords[at])
	}
	for at, text := range out.Selectors {
		p, there := selectors[at]
		if !there {
			return out, fmt.Errorf("%s: a selector of %s, which it does not have", path, at)
		}
		if *p, err = selector.Parse(text); err != nil {
			return out, fmt.Errorf("%s: selector of %s: %w", path, at, err)
		}
	}
	return out, nil
}

// writeState replaces the file, so that a power cut leaves the old one or the new
// one.
func writeState(path string, text []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".last-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, absent(os.Remove(f.Name())))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// statePath is beside the spool.
func (c Config) statePath() string {
	return filepath.Join(filepath.Dir(cmp.Or(c.Spool, spoolentry.DefaultDir)), "last-state.json")
}
