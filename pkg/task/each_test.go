package task

import (
	"fmt"
	"sync/atomic"
	"testing"
)

func TestEach(t *testing.T) {
	var now, most, done atomic.Int32
	err := Each(3, []int{1, 2, 3, 4, 5, 6, 7}, func(n int) error {
		defer now.Add(-1)
		if is := now.Add(1); is > most.Load() {
			most.Store(is)
		}
		done.Add(1)
		if n%3 == 0 {
			return fmt.Errorf("%d is refused", n)
		}
		return nil
	})
	if done.Load() != 7 || most.Load() > 3 || fmt.Sprint(err) != "3 is refused\n6 is refused" {
		t.Errorf("%d were done, %d at a time: %v", done.Load(), most.Load(), err)
	}
	if err := Each(3, nil, func(int) error { return nil }); err != nil {
		t.Error(err)
	}
}
