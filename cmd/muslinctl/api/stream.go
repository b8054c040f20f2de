package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// EachItem reads a list as it comes, one item after the other, so that a large
// one is never in memory as a whole and is read while the server still writes.
// visit decodes the next item from d.
func (c *Client) EachItem(ctx context.Context, path string, visit func(d *json.Decoder) error) error {
	body, err := c.rest.Get().AbsPath(path).Stream(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := items(json.NewDecoder(body), visit); err != nil {
		return fmt.Errorf("read the list %s: %w", path, err)
	}
	return nil
}

// items goes through the fields of a list and visits what stands in "items".
func items(d *json.Decoder, visit func(*json.Decoder) error) error {
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		field, err := d.Token()
		if err != nil {
			return err
		}
		if field != "items" {
			var skip json.RawMessage
			if err := d.Decode(&skip); err != nil {
				return err
			}
			continue
		}
		open, err := d.Token()
		switch {
		case err != nil:
			return err
		case open == nil:
			continue // "items": null
		case open != json.Delim('['):
			return errors.New("items is no list")
		}
		for d.More() {
			if err := visit(d); err != nil {
				return err
			}
		}
		if _, err := d.Token(); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
