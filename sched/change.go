package sched

import (
	"context"
	"errors"
	"fmt"

	"cortex"
	"cortex/store"
)

// Change changes a dispatch that waits, and lets it have its new turn. Errors as of store.Change; one that does not wait is a
// *cortex.Error that says what it does.
func (s *Scheduler) Change(ctx context.Context, id int64, c store.Change) (cortex.Dispatch, error) {
	d, err := s.store.Change(ctx, id, c)
	s.Wake() // also where it was not made: it could not be started meanwhile
	if !errors.Is(err, store.ErrNotPending) {
		return d, err
	}
	is := "does not wait"
	if d, err := s.Get(ctx, id); err == nil && d.Status != cortex.Pending {
		is = "is " + string(d.Status)
	}
	return d, &cortex.Error{Reason: cortex.ReasonNotPending, Message: fmt.Sprintf("Dispatch %d %s", id, is),
		Hint: "only what waits can be changed; cancel it and submit it anew"}
}
