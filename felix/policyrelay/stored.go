package policyrelay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/felix/policyrelay/relayrpc"
	"github.com/muslin-net/muslin/pkg/model"
	"google.golang.org/protobuf/proto"
)

const (
	storeEvery = 10 * time.Second // at most
	storeAgain = 10 * time.Minute // although nothing changed, to say that it is so still
	storedAge  = time.Hour        // what is older is not believed: addresses have other owners by then
)

// store keeps the view over a restart. What cannot be written is written next time.
func (c *Client) store(now time.Time) {
	age := now.Sub(c.stored)
	if c.File == "" || age < storeEvery || !c.unstored && age < storeAgain {
		return
	}
	c.stored, c.unstored = now, false
	if err := writeView(c.File, c.receiver, newMoment()); err != nil {
		c.Logger.Warn("a restart while no policy relay answers closes what rules open to pods of other nodes", "error", err)
	}
}

// writeView replaces the file at once, or not at all.
func writeView(path string, r *receiver, now moment) error {
	out := &relayrpc.View{Node: string(r.node), Time: now.wall, Boot: now.boot, SinceBoot: int64(now.since)}
	for n := range r.view.Known {
		out.Needs = append(out.Needs, &relayrpc.Need{Selector: n.Selector, Port: n.Port})
	}
	e := newEncoder()
	for _, m := range r.members {
		e.put(m.member, groupKey(&m.PolicyPod))
	}
	out.Pods = e.out
	text, err := proto.Marshal(out)
	if err != nil {
		return fmt.Errorf("encode view: %w", err)
	}
	next := path + ".new"
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), writeSynced(next, text)); err != nil {
		return err
	}
	return os.Rename(next, path)
}

func writeSynced(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// load gives what was stored, or nothing if that is of another node, or too old.
func (c *Client) load(now moment) *receiver {
	if c.File == "" {
		return newReceiver(c.Node)
	}
	r, err := readView(c.File, c.Node, now)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.Logger.Info("what the policy relay sent before is not known any more", "error", err)
		}
		return newReceiver(c.Node)
	}
	return r
}

func readView(path string, node model.NodeName, now moment) (*receiver, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var in relayrpc.View
	if err := proto.Unmarshal(text, &in); err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", path, err)
	}
	if age := (moment{in.Time, in.Boot, time.Duration(in.SinceBoot)}).age(now); in.Node != string(node) || age > storedAge || in.Pods == nil {
		return nil, fmt.Errorf("%s is of node %s and %s old", path, in.Node, age)
	}
	r := newReceiver(node)
	for _, n := range in.Needs {
		r.sent = append(r.sent, policy.Need{Selector: n.Selector, Port: n.Port})
	}
	in.Pods.Complete = true // of revision 0, which is that of what was stored
	if _, err := r.receive(in.Pods); err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", path, err)
	}
	r.view.Answered = false // not by a relay
	return r, nil
}
