package ipam

import (
	"context"
	"slices"
	"time"
)

// payDebts releases what a failed Assign could not take back.
func (a *Allocator) payDebts(ctx context.Context) {
	a.mu.Lock()
	var due []string
	for id, at := range a.debts {
		if !time.Now().Before(at) {
			due = append(due, id)
		}
	}
	a.mu.Unlock()
	slices.Sort(due)
	for _, id := range due {
		if err := a.payDebt(ctx, id); err != nil {
			a.mu.Lock()
			if _, ok := a.debts[id]; ok {
				a.debts[id] = time.Now().Add(repairEvery / 2)
			}
			a.mu.Unlock()
		}
	}
}

func (a *Allocator) payDebt(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	h, err := a.lockHandle(ctx, id)
	if err != nil {
		return err
	}
	defer a.unlockHandle(h)
	a.mu.Lock()
	_, owed := a.debts[id]
	if len(a.liveOf(id)) > 0 {
		owed = false
		delete(a.debts, id)
	}
	a.mu.Unlock()
	if !owed {
		return nil // assigned anew, or released, meanwhile
	}
	if err := a.releaseAll(ctx, h); err != nil {
		return err
	}
	a.clearDebt(id)
	return nil
}

// oweRelease notes a handle that has to be released once the datastore
// answers.
func (a *Allocator) oweRelease(handleID string) {
	a.mu.Lock()
	a.debts[handleID] = time.Now()
	a.mu.Unlock()
	a.wakeRepair()
}

func (a *Allocator) clearDebt(handleID string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.debts, handleID)
}
