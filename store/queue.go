package store

import (
	"context"
	"slices"
	"sync"
	"time"

	"cortex"
)

// A request is one write: a function that the write loop runs within its transaction. It may run more than once (when a
// commit failed), so that it sets what it returns anew each time.
type request struct {
	fn    func(*tx) error
	dated bool          // its caller does not wait for ever: fail it where another would be kept and tried again
	done  chan struct{} // closed when err is set
	err   error

	withdrawn bool // its caller was told that it is not applied; guarded by the queue's mu
}

func (r *request) finish(err error) {
	r.err = err
	close(r.done)
}

// queue holds the requests that no transaction has taken yet. The write loop takes them all at once; a caller whose context
// ends takes its own out again, and it is then never applied.
type queue struct {
	poke func()

	mu         sync.Mutex
	waiting    []*request // guarded by mu
	closed     error      // why nothing more is taken; guarded by mu
	committing bool       // what becomes of those that were taken is up to the disk now; guarded by mu
}

func (q *queue) put(r *request) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed != nil {
		return q.closed
	}
	q.waiting = append(q.waiting, r)
	q.poke()
	return nil
}

// withdraw takes r back, so that it is never applied; false when it is done, or being committed.
func (q *queue) withdraw(r *request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.waiting, r); i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
		return true
	}
	select {
	case <-r.done:
		return false
	default:
	}
	r.withdrawn = !q.committing
	return r.withdrawn
}

// commit says that a transaction with batch is about to be committed; false when one of these was withdrawn.
func (q *queue) commit(batch []*request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.committing = !slices.ContainsFunc(batch, func(r *request) bool { return r.withdrawn })
	return q.committing
}

// settled says that the transaction has come to its end, and its requests were told or put back.
func (q *queue) settled() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.committing = false
}

func (q *queue) takeAll() []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.waiting
	q.waiting = nil
	return all
}

// putBack returns those requests to the front that were not withdrawn.
func (q *queue) putBack(all []*request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	all = slices.DeleteFunc(all, func(r *request) bool { return r.withdrawn })
	q.waiting = append(all, q.waiting...)
}

func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) == 0
}

// close refuses what comes from now on with why. The first reason stays.
func (q *queue) close(why error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed == nil {
		q.closed = why
	}
}

// commitPatience is how long a caller that has given up waits for a commit that has begun.
const commitPatience = time.Second

// do has the write loop carry out fn and waits for the commit. A ctx that ends before that has begun takes fn back, also out
// of a transaction that hangs: it is never applied, and the error is ErrLocked where the lock was the reason. A commit that has
// begun is waited for a second longer; then the error is ErrHung, and nobody knows what will be. What fn sets is the
// caller's only when the error is nil or fn's own: else fn may still be running.
func (s *Store) do(ctx context.Context, fn func(*tx) error) error { return s.doLate(ctx, fn, nil) }

// doLate is do that calls late, which may be nil, with the outcome after ErrHung, when that is known: not at all where the
// daemon ends before.
func (s *Store) doLate(ctx context.Context, fn func(*tx) error, late func(error)) error {
	switch ctx.Err() {
	case nil:
	case context.DeadlineExceeded: // what came before it took all the time; why is told as below
		return s.gaveUp(ctx)
	default:
		return context.Cause(ctx)
	}
	_, dated := ctx.Deadline()
	r := &request{fn: fn, dated: dated, done: make(chan struct{})}
	if err := s.queue.put(r); err != nil {
		return err
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
	}
	if s.queue.withdraw(r) {
		return s.gaveUp(ctx)
	}
	patience := time.NewTimer(commitPatience)
	defer patience.Stop()
	select {
	case <-r.done:
		return r.err
	case <-patience.C:
	}
	if s.queue.withdraw(r) { // the commit has failed, and it waited for the next
		return s.gaveUp(ctx)
	}
	select {
	case <-r.done: // just now
		return r.err
	default:
	}
	if late != nil {
		go func() {
			<-r.done
			late(r.err)
		}()
	}
	return s.unknownError()
}

// post is do for what the store itself has to write, sooner or later; a failure is logged.
func (s *Store) post(what string, fn func(*tx) error) {
	r := &request{done: make(chan struct{})}
	r.fn = func(t *tx) error {
		if err := fn(t); err != nil {
			if troubleOf(err) == none {
				s.log.Error("a write of the store's own failed", "what", what, "err", err)
			}
			return err
		}
		return nil
	}
	if err := s.queue.put(r); err != nil {
		s.log.Debug("a write of the store's own was not taken", "what", what, "err", err)
	}
}

// AddEvent appends to the audit trail. The time is now where ev has none.
func (s *Store) AddEvent(ctx context.Context, ev cortex.Event) error {
	return s.do(ctx, func(t *tx) error { return t.event(ev) })
}
