package app

import (
	"context"
	"errors"

	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

// tell records an event for each object whose kind has no conditions and whose
// problems are others than they were; the first time also those of before.
func (c *Controller) tell(ctx context.Context) error {
	byObject := map[model.Ref][]model.Problem{}
	for _, p := range append(c.Cluster.Problems(), c.untouched...) {
		byObject[p.Object] = append(byObject[p.Object], p)
	}
	var errs []error
	now := map[model.Ref]string{}
	for _, o := range c.Cluster.Unconditional() {
		problems := byObject[o.Ref]
		if len(problems) == 0 {
			continue
		}
		text := message(problems)
		if now[o.Ref] = text; text == c.reported[o.Ref] {
			continue
		}
		err := c.Cluster.Record(ctx, kube.Event{Object: o.Ref, UID: o.Meta.UID, Type: kube.EventWarning, Reason: problems[0].Reason, Message: text})
		if errs = append(errs, err); err != nil {
			delete(now, o.Ref)
		}
	}
	c.reported = now
	return errors.Join(errs...)
}
