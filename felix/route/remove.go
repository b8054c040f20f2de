package route

import (
	"context"
	"errors"

	"github.com/muslin-net/muslin/felix"
)

// Remove deletes every route of ours in the namespace at path netns (empty: the
// process's own) and returns how many there were. Routes of others stay.
func Remove(ctx context.Context, netns string) (int, error) {
	r, err := New(Options{NetNS: netns})
	if err != nil {
		return 0, err
	}
	err = r.Apply(ctx, felix.State{Prune: true})
	return r.Stats().Deleted, errors.Join(err, r.Close())
}
