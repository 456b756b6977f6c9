package store

import (
	"errors"
	"sync"
	"testing"

	"cortex"
	"cortex/runner/record"
)

func keyedSpec(key, request string) record.Spec {
	spec := testSpec("b")
	spec.Key, spec.Request = key, request
	return spec
}

func TestKeyIsUsedOnce(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	first := acceptSpec(t, s, keyedSpec("k", "one"))
	again, repeated, err := s.Accept(ctx, keyedSpec("k", "one"))
	if err != nil || !repeated || again.ID != first.ID || again.IdempotencyKey != "k" {
		t.Errorf("%+v, repeated %v, %v", again, repeated, err)
	}
	_, repeated, err = s.Accept(ctx, keyedSpec("k", "two"))
	var told *cortex.Error
	if !errors.Is(err, ErrKeyUsed) || repeated || !errors.As(err, &told) || told.Reason != cortex.ReasonKeyConflict {
		t.Errorf("%v, repeated %v", err, repeated)
	}
	// Nothing of those two is left, and others are not kept from anything.
	if left, err := record.OpenDir(s.runs, first.ID+1, 0); err == nil {
		left.Close()
		t.Error("a folder of what was not accepted")
	}
	acceptSpec(t, s, keyedSpec("", ""))
	acceptSpec(t, s, keyedSpec("", ""))
	acceptSpec(t, s, keyedSpec("other", "one"))
}

// Of any number of callers with one key, one makes the dispatch and all get it.
func TestKeyOfManyCallers(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	var mu sync.Mutex
	ids, fresh := map[int64]bool{}, 0
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			d, repeated, err := s.Accept(ctx, keyedSpec("k", "one"))
			mu.Lock()
			defer mu.Unlock()
			if ids[d.ID] = true; err != nil {
				t.Error(err)
			}
			if !repeated {
				fresh++
			}
		})
	}
	wg.Wait()
	if len(ids) != 1 || fresh != 1 {
		t.Errorf("%d dispatches, %d made", len(ids), fresh)
	}
}

// A key outlives a database that was lost, and one that two rows of a restored history would have stays with the one that
// is there.
func TestKeyIsRestored(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	old := keyedSpec("k", "one")
	old.ID, old.Format = 7, record.Format
	d := must[cortex.Dispatch](t)(s.Restore(ctx, old, 0, cortex.Pending))
	if again, repeated, err := s.Accept(ctx, keyedSpec("k", "one")); err != nil || !repeated || again.ID != d.ID {
		t.Errorf("%+v, repeated %v, %v", again, repeated, err)
	}
	other := keyedSpec("k", "two")
	other.ID, other.Format = 8, record.Format
	if d := must[cortex.Dispatch](t)(s.Restore(ctx, other, 0, cortex.Pending)); d.IdempotencyKey != "" {
		t.Errorf("%+v", d)
	}
}
