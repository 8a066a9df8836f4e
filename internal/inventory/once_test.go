package inventory

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestNobodyWaitsForAnEvaluationOfAnotherKey locks that what is asked of one pin holds up nobody who asks of another, that it is asked
// once, and that who waits for it can be ended.
func TestNobodyWaitsForAnEvaluationOfAnotherKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o once[string, int]
		asked := 0
		slow := func() (int, error) {
			asked++
			time.Sleep(time.Hour)
			return 1, nil
		}
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() {
				if got, err := o.get(t.Context(), "slow", slow); got != 1 || err != nil {
					t.Errorf("%d, %v", got, err)
				}
			})
		}
		synctest.Wait()
		begin := time.Now()
		if got, err := o.get(t.Context(), "other", func() (int, error) { return 2, nil }); got != 2 || err != nil || time.Since(begin) > 0 {
			t.Errorf("%d, %v after %v", got, err, time.Since(begin))
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if _, err := o.get(ended, "slow", slow); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		group.Wait()
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
	})
}

// TestAFailureIsAskedAgain locks that one whose context has ended spoils nothing for the others.
func TestAFailureIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o once[string, int]
		var group sync.WaitGroup
		group.Go(func() {
			if _, err := o.get(t.Context(), "key", func() (int, error) { time.Sleep(time.Second); return 0, errors.New("no") }); err == nil {
				t.Error("no failure")
			}
		})
		synctest.Wait()
		if got, err := o.get(t.Context(), "key", func() (int, error) { return 3, nil }); got != 3 || err != nil {
			t.Errorf("%d, %v", got, err)
		}
		group.Wait()
	})
}
