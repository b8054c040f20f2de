package task

import (
	"errors"
	"sync"
)

// Each does something with every one of a list, at most so many at a time, goes on
// after an error, and joins the errors in the order of the list.
func Each[T any](most int, list []T, do func(T) error) error {
	slots, errs := make(chan struct{}, most), make([]error, len(list))
	var all sync.WaitGroup
	for i, v := range list {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			errs[i] = do(v)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
