package tunnel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Remove deletes the tunnel devices of ours in the namespace at path netns
// (empty: the process's own) and returns their names. tunl0, which cannot be
// deleted, is set down and stripped. A device that lacks our alias is somebody
// else's and stays.
func Remove(netns string) ([]string, error) {
	r, err := New(Options{NetNS: netns})
	if err != nil {
		return nil, err
	}
	var removed []string
	var errs []error
	for _, name := range names {
		have, err := r.conn.GetLink(name)
		switch {
		case errors.Is(err, unix.ENODEV) || err == nil && have.Alias != alias:
			continue
		case err == nil:
			err = r.discard(have)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("tunnel device %s: %w", name, err))
			continue
		}
		removed = append(removed, name)
	}
	return removed, errors.Join(append(errs, r.Close())...)
}
