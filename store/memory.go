package store

import (
	"maps"
	"slices"
	"sync"
	"time"

	"cortex"
)

// memory is what must be known without waiting for the database: counts, the holds in force, and the orders that are so far
// only in the stop journal. The write loop publishes into it after each commit, before anybody is told of that.
type memory struct {
	mu        sync.RWMutex
	counts    map[cortex.Status]int // guarded by mu
	holds     []cortex.Hold         // rows that are not lifted; guarded by mu
	orders    []entry               // journalled, not in the database; guarded by mu
	accepting map[int64]bool        // committed or being changed, and spec.json is not as it will be; guarded by mu
	failures  int64                 // guarded by mu
	foreign   int                   // of the pending ones, rows without a spec, that are never started; guarded by mu
	claimed   int                   // claimed, and not Taken yet; guarded by mu
	stirred   map[int64]bool        // since Stirred was last asked; guarded by mu
	stirAll   bool                  // the same of all of them; guarded by mu
	fresh     map[int64]bool        // that this process takes in, until runs/ is; then nil; guarded by mu
	changed   chan struct{}         // closed at the next change; guarded by mu
}

func newMemory() *memory {
	return &memory{counts: map[cortex.Status]int{}, accepting: map[int64]bool{}, stirred: map[int64]bool{}, stirAll: true,
		fresh:   map[int64]bool{},
		changed: make(chan struct{})}
}

// stored returns the holds of rows and journal in force at now.
func (m *memory) stored(now time.Time) []cortex.Hold {
	m.mu.RLock()
	defer m.mu.RUnlock()
	held := []cortex.Hold{}
	for _, h := range m.holds {
		if h.InForce(now) {
			held = append(held, h)
		}
	}
	return append(held, m.journalled(now)...)
}

// journalled returns the holds of the journal in force at now. The caller holds mu.
func (m *memory) journalled(now time.Time) []cortex.Hold {
	var held []cortex.Hold
	for _, e := range m.orders {
		if e.Op == opPause && e.Hold != nil && e.Hold.InForce(now) {
			held = append(held, *e.Hold)
		}
	}
	return held
}

// notStarted reports whether dispatch id may not be started for a reason that only memory knows: a journalled hold over d,
// a journalled cancel, or a spec that is not in its place yet.
func (m *memory) notStarted(d cortex.Dispatch, now time.Time) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.accepting[d.ID] {
		return ErrNotPending
	}
	for _, h := range m.journalled(now) {
		if h.Covers(d) {
			return ErrHeld
		}
	}
	for _, e := range m.orders {
		if e.Op == opCancel && e.ID == d.ID {
			return ErrHeld
		}
	}
	return nil
}

// excluded lists the dispatches that Pending leaves out for notStarted's last two reasons.
func (m *memory) excluded() map[int64]bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := maps.Clone(m.accepting)
	for _, e := range m.orders {
		if e.Op == opCancel {
			out[e.ID] = true
		}
	}
	return out
}

// CancelledInJournal are the dispatches that waited and were cancelled, which so far only the stop journal knows.
func (s *Store) CancelledInJournal() map[int64]bool {
	all := map[int64]bool{}
	for _, e := range s.mem.waitingOrders() {
		if e.Op == opCancel {
			all[e.ID] = true
		}
	}
	return all
}

// setFresh says whether the folder of id in runs/ is one that this process makes.
func (m *memory) setFresh(id int64, on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.fresh == nil:
	case on:
		m.fresh[id] = true
	default:
		delete(m.fresh, id)
	}
}

// Fresh reports whether a dispatch came in while runs/ is taken in: its folder is not one that was left, whatever of it is there.
func (s *Store) Fresh(id int64) bool {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	return s.mem.fresh[id]
}

// TakenIn says that runs/ is taken in: nobody asks any more what is Fresh.
func (s *Store) TakenIn() {
	s.mem.mu.Lock()
	defer s.mem.mu.Unlock()
	s.mem.fresh = nil
}

// beginChange keeps a dispatch that waits from being started until setAccepting(id, false); false where that is so already, or a
// cancel of it is in the journal.
func (m *memory) beginChange(id int64) bool {
	if m.excluded()[id] {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.accepting[id] {
		return false
	}
	m.accepting[id] = true
	return true
}

// setAccepting says whether id is committed but not yet to be started.
func (m *memory) setAccepting(id int64, on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if on {
		m.accepting[id] = true
	} else {
		delete(m.accepting, id)
		m.stirred[id] = true
	}
}

// addOrder puts a journalled order in force.
func (m *memory) addOrder(e entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.orders = append(m.orders, e)
	if e.Op == opCancel {
		m.stirred[e.ID] = true
	}
}

// waitingOrders are the journalled orders that the database does not have yet.
func (m *memory) waitingOrders() []entry {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Clone(m.orders)
}

// publish takes over what a committed transaction changed.
func (m *memory) publish(t *tx) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t.counts != nil {
		m.counts, m.failures, m.foreign, m.stirAll = t.counts, t.failures, t.foreign, true
	} else {
		m.foreign += t.foreign
	}
	m.claimed += t.claimed
	for _, id := range t.stirred {
		m.stirred[id] = true
	}
	m.failures += int64(max(t.moved[cortex.Failed], 0))
	for status, n := range t.moved {
		m.counts[status] += n
	}
	if t.held != nil {
		m.holds = *t.held
	}
	m.orders = slices.DeleteFunc(m.orders, func(e entry) bool { return t.applied[e.Key] })
	close(m.changed)
	m.changed = make(chan struct{})
}

// Changed returns a channel that is closed when anything in the database has changed since: take it, look, then wait.
func (s *Store) Changed() <-chan struct{} {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	return s.mem.changed
}

// Stirred tells which dispatches may have come to wait, wait differently or wait no longer since it was last called; all: any
// of them may. It is for the one who keeps the queue, and never waits.
func (s *Store) Stirred() (ids []int64, all bool) {
	s.mem.mu.Lock()
	defer s.mem.mu.Unlock()
	ids, all = slices.Collect(maps.Keys(s.mem.stirred)), s.mem.stirAll
	clear(s.mem.stirred)
	s.mem.stirAll = false
	return ids, all
}

// Failures is how many dispatches have ended as failed since the database was made. It never falls, whatever rows are
// deleted, and never waits.
func (s *Store) Failures() float64 {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	return float64(s.mem.failures)
}

// Counts is how many dispatches there are by status. It never waits; before the database could be read for the first time
// all are 0.
func (s *Store) Counts() map[cortex.Status]int {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	out := make(map[cortex.Status]int, len(cortex.Statuses))
	for _, status := range cortex.Statuses {
		out[status] = max(s.mem.counts[status], 0)
	}
	return out
}

// Waiting is how many dispatches wait to be started: the pending ones, but for rows that a person inserted, which never are,
// and those that are claimed until they are Taken. It never waits.
func (s *Store) Waiting() int {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	cancelled := 0
	for _, e := range s.mem.orders {
		if e.Op == opCancel {
			cancelled++
		}
	}
	return max(s.mem.counts[cortex.Pending]+s.mem.counts[cortex.PendingRetry]-s.mem.foreign-cancelled, 0) + s.mem.claimed
}

// Taken says that a dispatch that was claimed lives. Until then it counts as one that waits, since nobody else counts it.
func (s *Store) Taken() {
	s.mem.mu.Lock()
	defer s.mem.mu.Unlock()
	s.mem.claimed--
}

// Holds is what is in force now: rows, those that are so far only in the stop journal, and, while the database can't be
// written, a computed one of kind db. It never waits.
func (s *Store) Holds() []cortex.Hold {
	held := s.mem.stored(s.now())
	if h, ok := s.lockHold(); ok {
		held = append(held, h)
	}
	return held
}

// paused reports whether a stored or journalled hold of scope all is in force: then the main file stays as it is.
func (s *Store) paused() bool {
	return slices.ContainsFunc(s.mem.stored(s.now()), func(h cortex.Hold) bool { return h.Scope == cortex.ScopeAll })
}

// NextExpiry is when the next hold ends by itself, which may be past: then Expire is due.
func (s *Store) NextExpiry() (time.Time, bool) {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	var next time.Time
	for _, h := range s.mem.holds {
		if h.Until != nil && (next.IsZero() || h.Until.Before(next)) {
			next = *h.Until
		}
	}
	return next, !next.IsZero()
}
