package alloc

import (
	"context"
	"slices"
	"time"
)

// retryReleases releases what a failed Assign could not take back.
func (a *Allocator) retryReleases(ctx context.Context) {
	a.mu.Lock()
	var due []string
	for id, at := range a.pendingReleases {
		if !time.Now().Before(at) {
			due = append(due, id)
		}
	}
	a.mu.Unlock()
	slices.Sort(due)
	for _, id := range due {
		if err := a.retryRelease(ctx, id); err != nil {
			a.mu.Lock()
			if _, ok := a.pendingReleases[id]; ok {
				a.pendingReleases[id] = time.Now().Add(repairEvery / 2)
			}
			a.mu.Unlock()
		}
	}
}

func (a *Allocator) retryRelease(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	h, err := a.lockHandle(ctx, id)
	if err != nil {
		return err
	}
	defer a.unlockHandle(h)
	a.mu.Lock()
	_, owed := a.pendingReleases[id]
	if len(a.liveOf(id)) > 0 {
		owed = false
		delete(a.pendingReleases, id)
	}
	a.mu.Unlock()
	if !owed {
		return nil // assigned anew, or released, meanwhile
	}
	if err := a.releaseAll(ctx, h); err != nil {
		return err
	}
	a.clearPending(id)
	return nil
}

// oweRelease notes a handle that has to be released once the datastore
// answers.
func (a *Allocator) oweRelease(handleID string) {
	a.mu.Lock()
	a.pendingReleases[handleID] = time.Now()
	a.mu.Unlock()
	a.wakeRepair()
}

func (a *Allocator) clearPending(handleID string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.pendingReleases, handleID)
}
