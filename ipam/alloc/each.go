package alloc

import (
	"errors"
	"sync"
)

// parallel is how many handles are written at the same time.
const parallel = 8

// each does something with every one of a list, several at a time, and goes on after
// an error.
func each[T any](list []T, do func(T) error) error {
	errs, slots := make([]error, len(list)), make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i, v := range list {
		slots <- struct{}{}
		wg.Go(func() {
			errs[i] = do(v)
			<-slots
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
