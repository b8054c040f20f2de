package app

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// watched is what an event tells of the object that is followed.
type watched struct {
	gone bool // deleted, or being deleted
}

// keepFollowing watches one object until ctx ends: each is called when the watch
// begins, if the object is there, and at each change.
func (o *Objects) keepFollowing(ctx context.Context, path, name string, each func(watched)) {
	for ctx.Err() == nil {
		if err := o.follow(ctx, path, name, each); err != nil && ctx.Err() == nil {
			o.log.Debug("watch of an object ended", "path", path, "name", name, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryAfter):
		}
	}
}

// follow is one watch of keepFollowing. path is that of all objects of the kind.
func (o *Objects) follow(ctx context.Context, path, name string, each func(watched)) error {
	body, err := o.client.Get().AbsPath(path).SetHeader("Accept", jsonMeta).
		Param("fieldSelector", "metadata.name="+name).Param("watch", "true").Stream(ctx)
	if err != nil {
		return fmt.Errorf("watch %s/%s: %w", path, name, err)
	}
	defer body.Close()
	decoder := json.NewDecoder(body)
	for {
		var event struct {
			Type   string `json:"type"`
			Object struct {
				Metadata struct {
					DeletionTimestamp *time.Time `json:"deletionTimestamp"`
				} `json:"metadata"`
			} `json:"object"`
		}
		if err := decoder.Decode(&event); err != nil {
			return err
		}
		each(watched{gone: event.Type == "DELETED" || event.Object.Metadata.DeletionTimestamp != nil})
	}
}
