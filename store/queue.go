package store

import (
	"context"
	"sync"

	"cortex"
)

// A request is one write: a function that the write loop runs within its transaction. It may run more than once (when a
// commit failed), so that it sets what it returns anew each time.
type request struct {
	fn    func(*tx) error
	dated bool          // its caller does not wait for ever: fail it where another would be kept and tried again
	done  chan struct{} // closed when err is set
	err   error
}

func (r *request) finish(err error) {
	r.err = err
	close(r.done)
}

// queue holds the requests that no transaction has taken yet. The write loop takes them all at once; a caller whose context
// ends takes its own out again, and it is then never applied.
type queue struct {
	poke func()

	mu      sync.Mutex
	waiting []*request // guarded by mu
	closed  error      // why nothing more is taken; guarded by mu
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

// remove takes r out; false when the write loop was faster.
func (q *queue) remove(r *request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, w := range q.waiting {
		if w == r {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			return true
		}
	}
	return false
}

func (q *queue) takeAll() []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.waiting
	q.waiting = nil
	return all
}

// putBack returns requests to the front.
func (q *queue) putBack(all []*request) {
	q.mu.Lock()
	defer q.mu.Unlock()
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

// do has the write loop carry out fn and waits for the commit. A ctx that ends before fn's turn takes it back: it is never
// applied, and the error is ErrLocked where the lock was the reason. Once its transaction has begun, ctx means nothing: the
// result is waited for, and neither ctx's end nor its deadline reach the transaction.
func (s *Store) do(ctx context.Context, fn func(*tx) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	_, dated := ctx.Deadline()
	r := &request{fn: fn, dated: dated, done: make(chan struct{})}
	if err := s.queue.put(r); err != nil {
		return err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if s.queue.remove(r) {
			return s.gaveUp(ctx)
		}
		<-r.done
	}
	return r.err
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
