package store

import (
	"fmt"
	"sync"
	"time"

	"cortex"
)

// contention is what keeps the write loop from writing, and since when.
type contention struct {
	patience time.Duration
	now      func() time.Time

	mu       sync.Mutex
	since    time.Time // of the lock, monotonic; zero when it is free; guarded by mu
	began    time.Time // the same by the wall clock; guarded by mu
	episode  bool      // it took longer than patience: an event is due; guarded by mu
	busy     time.Time // since when the write loop has been in the database, monotonic; zero while it waits; guarded by mu
	last     error     // the last failure; guarded by mu
	deadWith error     // guarded by mu
}

// begin notes that the write loop goes to the database.
func (c *contention) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = time.Now()
}

// end notes that it has come back, and returns when it had gone.
func (c *contention) end() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	since := c.busy
	c.busy = time.Time{}
	return since
}

// hung returns since when the write loop has been in the database, when that is longer than patience: the lock is waited for
// outside of it, so that it is the disk or the file system that does not answer.
func (c *contention) hung() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.busy, !c.busy.IsZero() && time.Since(c.busy) > c.patience
}

// locked notes that the lock was not to be had.
func (c *contention) locked(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = err
	if c.since.IsZero() {
		c.since, c.began = time.Now(), c.now()
	}
	c.episode = c.episode || time.Since(c.since) > c.patience
}

// stuck notes another failure; true when it is the first of its time.
func (c *contention) stuck(err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.last == nil || troubleOf(c.last) != troubleOf(err)
	c.last = err
	return first
}

// clear notes that a commit has succeeded. One that wrote nothing needed no room, and says nothing of a full disk.
func (c *contention) clear(wrote bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.since, c.episode = time.Time{}, false
	if wrote || troubleOf(c.last) == locked {
		c.last = nil
	}
}

// forget ends a short wait whose callers have all given up. A full disk stays known until a write succeeds.
func (c *contention) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if troubleOf(c.last) == locked || c.last == nil {
		c.since, c.last = time.Time{}, nil
	}
}

func (c *contention) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deadWith != nil {
		return c.deadWith
	}
	return c.last
}

func (c *contention) fatal() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deadWith
}

func (c *contention) setFatal(err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deadWith != nil {
		return false
	}
	c.deadWith = err
	return true
}

// reportable is true while a lock has been waited for so long that its end must be told: the loop goes on trying then even
// when nobody waits any more.
func (c *contention) reportable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.episode = c.episode || (!c.since.IsZero() && time.Since(c.since) > c.patience)
	return c.episode
}

// long returns since when the lock has been waited for, when that is longer than patience.
func (c *contention) long() (time.Time, bool) {
	if !c.reportable() {
		return time.Time{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.began, true
}

// hangTold is from when on a write that hung is an event: a slow disk's are shorter.
const hangTold = 5 * time.Second

// cameBack tells that the write loop was in the database for long.
func (s *Store) cameBack() {
	since := s.contention.end()
	took := time.Since(since).Round(time.Second / 10)
	if took < hangTold {
		return
	}
	s.log.Warn("a write to the database hung", "for", took)
	s.post("event", func(t *tx) error {
		return t.event(cortex.Event{Type: cortex.EventDatabaseHung, Severity: cortex.Warning, CreatedAt: &since,
			Message: fmt.Sprintf("A write to the database hung for %v: the file system of %s did not answer", took, s.home)})
	})
}

// reportLock writes the two events of a locked time that was long, once it is over.
func (s *Store) reportLock(t *tx) error {
	since, ok := s.contention.long()
	if !ok {
		return nil
	}
	err := t.event(cortex.Event{Type: cortex.EventDatabaseLocked, Severity: cortex.Warning, CreatedAt: &since,
		Message: "The database was locked by another program; writes waited"})
	if err != nil {
		return err
	}
	return t.event(cortex.Event{Type: cortex.EventDatabaseUnlocked, Severity: cortex.Info,
		Message: fmt.Sprintf("The database is free again after %s", t.now.Sub(since).Round(time.Second/10))})
}

// lockHold is the computed hold while nothing can be started for want of the database.
func (s *Store) lockHold() (cortex.Hold, bool) {
	since, long := s.contention.long()
	hungSince, hung := s.contention.hung()
	if s.isReady() && !long && !hung {
		return cortex.Hold{}, false
	}
	if hung {
		return cortex.Hold{Kind: cortex.HoldDB, Scope: cortex.ScopeAll, Reason: "a write to the database hangs: the disk does not answer",
			By: "cortex", Via: "auto", Since: hungSince}, true
	}
	if since.IsZero() {
		since = s.opened
	}
	reason := "the database can't be opened yet"
	if err := s.contention.err(); troubleOf(err) == locked || err == nil {
		reason = "the database is locked by another program"
		if who, ok := s.holder(); ok {
			reason = "the database is locked by " + who
		}
	} else if troubleOf(err) == full {
		reason = "the database can't be opened: the disk is full"
	}
	return cortex.Hold{Kind: cortex.HoldDB, Scope: cortex.ScopeAll, Reason: reason, By: "cortex", Via: "auto", Since: since}, true
}
