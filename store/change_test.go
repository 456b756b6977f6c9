package store

import (
	"context"
	"testing"
	"time"

	"cortex"
	"cortex/runner/record"
)

func specOf(t *testing.T, s *Store, id int64) record.Spec {
	t.Helper()
	dir, spec, err := s.openSpec(id)
	check(t, err)
	check(t, dir.Close())
	return spec
}

// A change is whole or not at all: in the row, in the spec, and told once.
func TestChange(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	d := accept(t, s)
	first, timeout := 0, int64(5000)
	at := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	got := must[cortex.Dispatch](t)(s.Change(ctx, d.ID, Change{Priority: &first, TimeoutMS: &timeout, NotBefore: &at, By: "ann"}))
	spec := specOf(t, s, d.ID)
	if got.Priority != 0 || !got.NotBefore.Equal(at) || spec.Priority != 0 || spec.TimeoutMS != 5000 || !spec.NotBefore.Equal(at) || spec.ChangedAt == nil {
		t.Errorf("%+v %+v", got, spec)
	}
	_, err := s.Claim(ctx, d.ID, atMost(9), nil)
	wantErr(t, err, ErrHeld)

	// The caller of a locked database hangs up: the change waits all the same, and is not made when its time is over.
	lock := lockOut(t, s)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	last := 4
	_, err = s.Change(gone, d.ID, Change{Priority: &last})
	wantErr(t, err, ErrLocked)
	lock.close()
	if spec := specOf(t, s, d.ID); spec.Priority != 0 {
		t.Errorf("%+v", spec)
	}
	now := time.Time{}
	must[cortex.Dispatch](t)(s.Change(ctx, d.ID, Change{NotBefore: &now}))
	a := must[cortex.Attempt](t)(s.Claim(ctx, d.ID, atMost(9), nil)) // nothing of the failed change keeps it
	if a.Dispatch.Priority != 0 || a.Dispatch.NotBefore != nil {
		t.Errorf("%+v", a)
	}
	_, err = s.Change(ctx, d.ID, Change{Priority: &last})
	wantErr(t, err, ErrNotPending)
	if spec := specOf(t, s, d.ID); spec.Priority != 0 || spec.TimeoutMS != 5000 {
		t.Errorf("%+v", spec)
	}
	if n := count(t, s, cortex.EventDispatchChanged); n != 2 {
		t.Errorf("%d events", n)
	}
	_, err = s.Change(ctx, 99, Change{Priority: &last})
	wantErr(t, err, ErrNotFound)
	sqlite(t, s.path, "INSERT INTO dispatches (bead_id) VALUES ('hand')")
	_, err = s.Change(ctx, 2, Change{Priority: &last})
	wantErr(t, err, ErrNotPending)
}

// A row that does not know a change of its spec is brought to it; one that was written later stays.
func TestTakeChange(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	d := accept(t, s)
	first := 0
	must[cortex.Dispatch](t)(s.Change(ctx, d.ID, Change{Priority: &first}))
	spec := specOf(t, s, d.ID)
	check(t, s.TakeChange(ctx, get(t, s, d.ID), spec)) // it knows it
	sqlite(t, s.path, "UPDATE dispatches SET priority = 3, updated_at = datetime('now', '-1 hour')")
	check(t, s.TakeChange(ctx, get(t, s, d.ID), spec))
	if got := get(t, s, d.ID); got.Priority != 0 {
		t.Errorf("%+v", got)
	}
	sqlite(t, s.path, "UPDATE dispatches SET priority = 3, updated_at = datetime('now', '+1 hour')")
	check(t, s.TakeChange(ctx, get(t, s, d.ID), spec))
	if got := get(t, s, d.ID); got.Priority != 3 {
		t.Errorf("%+v", got)
	}
	if n := count(t, s, cortex.EventDispatchRestored); n != 1 {
		t.Errorf("%d events", n)
	}
}
