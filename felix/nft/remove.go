package nft

import (
	"errors"
	"fmt"

	"github.com/google/nftables"

	"github.com/muslin-net/muslin/felix"
)

// Remove deletes the table in the namespace at path netns (empty: the process's
// own) and reports whether there was one. Tables of others stay.
func Remove(netns string) (bool, error) {
	r, err := New(Options{NetNS: netns})
	if err != nil {
		return false, err
	}
	_, err = r.conn.ListTableOfFamily(felix.TableName, nftables.TableFamilyINet)
	if absent(err) {
		return false, r.Close()
	}
	if err == nil {
		r.conn.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: felix.TableName})
		err = r.conn.Flush()
	}
	if err != nil {
		err = fmt.Errorf("delete table inet %s: %w", felix.TableName, err)
	}
	return err == nil, errors.Join(err, r.Close())
}
