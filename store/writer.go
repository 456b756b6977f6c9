package store

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"time"

	"cortex"
	"cortex/internal/fault"
)

// WriteTimeout is how long an operator's write waits for the database before it is refused with ErrLocked.
const WriteTimeout = 8 * time.Second

const (
	stopTimeout  = time.Second            // pause, cancel and drain are journalled after it
	lockPatience = time.Second            // a wait for the lock that is longer is a hold and an event
	retryMin     = 10 * time.Millisecond  // between two tries to get the lock ...
	retryMax     = 50 * time.Millisecond  // ... with somebody waiting
	retryIdle    = 250 * time.Millisecond // ... with nobody waiting, and between two tries on a full disk
	atOnce       = time.Duration(0)
	untilPoked   = time.Duration(-1)
)

// tx is the transaction of a group of requests, in the hands of one of them. Its methods are for the write loop only.
type tx struct {
	s        *Store
	now      time.Time
	moved    map[cortex.Status]int // changes of the counts
	stirred  []int64               // the dispatches whose status these are
	counts   map[cortex.Status]int // all counted anew, after another's change
	held     *[]cortex.Hold        // holds read anew
	failures int64                 // read with counts
	foreign  int                   // read with counts, else a change: pending rows without a spec
	applied  map[string]bool       // keys of journalled orders
	touched  bool                  // holds were written
	ended    bool                  // an end was recorded
	claimed  int                   // dispatches that are nobody's until Taken
	wrote    bool                  // something was written
	fresh    bool                  // a pause began: the main file is not up to date for it
	wants    []*checkpointWant
	version  int64 // data_version as this transaction sees it
}

// The context of all that the write loop does in the database. No caller's context comes here: one that ends would
// interrupt the whole group.
var background = context.Background()

func (t *tx) exec(query string, args ...any) (int64, error) {
	res, err := t.s.conn.ExecContext(background, query, args...)
	if err != nil {
		return 0, err
	}
	t.wrote = true
	return res.RowsAffected()
}

func (t *tx) get(dest any, query string, args ...any) error {
	return t.s.conn.GetContext(background, dest, query, args...)
}

func (t *tx) list(dest any, query string, args ...any) error {
	return t.s.conn.SelectContext(background, dest, query, args...)
}

// move notes a status change of dispatch id; from is "" for a row that was not there.
func (t *tx) move(id int64, from, to cortex.Status) {
	t.stirred = append(t.stirred, id)
	if from != "" {
		t.moved[from]--
	}
	t.moved[to]++
}

func (s *Store) exec(query string) error {
	_, err := s.conn.ExecContext(background, query)
	return err
}

// rollback ends a transaction, which SQLite may have ended itself (sqlite.org/lang_transaction.html, point 3); then this is
// an error that says nothing.
func (s *Store) rollback() {
	if err := s.exec("ROLLBACK"); err != nil {
		s.log.Debug("nothing to roll back", "err", err)
	}
}

// writeLoop owns the one connection that writes. It ends when the store is closing and either nothing is left to do or the
// closing time is over.
func (s *Store) writeLoop() {
	defer close(s.written)
	for {
		if s.closing.Load() && (s.nothingLeft() || s.closeCtx().Err() != nil) {
			s.refuseRest()
			return
		}
		if wait := s.step(); wait != atOnce {
			s.sleep(wait)
		}
	}
}

func (s *Store) nothingLeft() bool {
	return s.queue.empty() || s.contention.fatal() != nil
}

// refuseRest tells those that are left that nothing was written.
func (s *Store) refuseRest() {
	rest := s.queue.takeAll()
	s.dropped = len(rest)
	for _, r := range rest {
		r.finish(closedError())
	}
	for _, w := range s.wants {
		w.answer(false)
	}
	s.wants = nil
}

// sleep waits until somebody pokes, the store closes, or wait is over.
func (s *Store) sleep(wait time.Duration) {
	var timer <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		timer = t.C
	}
	var closing <-chan struct{}
	if s.closing.Load() {
		closing = s.closeCtx().Done()
	}
	if wait > 0 && wait <= retryMax { // a retry does not come earlier for a poke
		select {
		case <-timer:
		case <-closing:
		}
		return
	}
	select {
	case <-timer:
	case <-closing:
	case <-s.poked:
	}
}

// poke wakes the write loop.
func (s *Store) poke() {
	select {
	case s.poked <- struct{}{}:
	default:
	}
}

// step does what there is to do, once, and says how long to wait before the next.
func (s *Store) step() time.Duration {
	if s.contention.fatal() != nil {
		s.refuseAll(s.contention.fatal())
		return untilPoked
	}
	if !s.isReady() {
		return s.stepUp()
	}
	wait := untilPoked
	s.contention.begin()
	defer s.cameBack()
	if s.outsidePoke.Swap(false) {
		wait = s.lookOutside()
		if s.contention.fatal() != nil {
			return untilPoked
		}
	}
	if s.hasWrites() {
		if err := s.group(); err != nil {
			wait = sooner(wait, s.blockedBy(err))
		}
	} else {
		s.contention.forget()
	}
	return sooner(wait, s.checkpoints())
}

func (s *Store) hasWrites() bool {
	return !s.queue.empty() || s.contention.reportable() || len(s.mem.waitingOrders()) > 0
}

// stepUp is step while the database is not open yet.
func (s *Store) stepUp() time.Duration {
	err := s.bringUp()
	if err == nil {
		return atOnce
	}
	var told *cortex.Error
	if errors.As(err, &told) {
		s.fail(err)
		return untilPoked
	}
	switch {
	case troubleOf(err) == hopeless:
		s.fail(corrupt(s.path, err))
		return untilPoked
	case !passing(err):
		s.fail(cantOpen(s.path, err))
		return untilPoked
	}
	return s.blockedBy(err)
}

// blockedBy notes that nothing can be written now, and returns when to try again.
func (s *Store) blockedBy(err error) time.Duration {
	switch troubleOf(err) {
	case hopeless:
		s.fail(corrupt(s.path, err))
		return untilPoked
	case locked:
		s.contention.locked(err)
		if s.queue.empty() {
			return retryIdle
		}
		return retryMin + rand.N(retryMax-retryMin)
	}
	if s.contention.stuck(err) {
		s.log.Error("the database can't be written; what must not be lost waits", "err", err)
	}
	return retryIdle
}

// fail ends all writing: every request fails with err from now on.
func (s *Store) fail(err error) {
	if !s.contention.setFatal(err) {
		return
	}
	s.queue.close(err)
	s.refuseAll(err)
	s.fatal <- err
}

func (s *Store) refuseAll(err error) {
	for _, r := range s.queue.takeAll() {
		r.finish(err)
	}
	for _, w := range s.wants {
		w.answer(false)
	}
	s.wants = nil
}

// sooner is the earlier of two waits.
func sooner(a, b time.Duration) time.Duration {
	switch {
	case a < 0:
		return b
	case b < 0:
		return a
	}
	return min(a, b)
}

// group carries out all requests that wait in one transaction with one fsync. Each has a savepoint of its own, so that one
// that fails takes back nothing but itself. Nobody is told before the commit has succeeded. It returns an error when the
// transaction as a whole failed; nothing of it is applied then.
func (s *Store) group() error {
	if err := s.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	batch := s.queue.takeAll()
	defer s.queue.settled()
	t := &tx{s: s, now: s.now(), moved: map[cortex.Status]int{}, applied: map[string]bool{}}
	given := s.ids.given()
	err := s.fill(t, batch)
	again := err == nil && !s.queue.commit(batch)
	if err == nil && !again {
		fault.Point("store.commit")
		err = s.exec("COMMIT")
	}
	if again || err != nil {
		s.rollback()
		s.ids.rewind(given)
	}
	if again {
		s.queue.putBack(batch)
		s.poke()
		return nil
	}
	if err != nil {
		s.refuse(batch, err)
		return err
	}
	s.dataVersion = t.version
	s.mem.publish(t)
	s.afterCommit(t)
	_, long := s.contention.long()
	s.contention.clear(t.wrote)
	if long {
		s.signalOutside() // the db hold is lifted
	}
	for _, r := range batch {
		close(r.done)
	}
	return nil
}

// fill does the store's own part of the transaction and then each request.
func (s *Store) fill(t *tx, batch []*request) error {
	if err := s.prepare(t); err != nil {
		return err
	}
	fault.Point("store.fill")
	for _, r := range batch {
		before := *t
		before.moved = maps.Clone(t.moved)
		err := t.savepoint(r.fn)
		if troubleOf(err) != none {
			return err
		}
		if r.err = err; err != nil {
			*t = before // what it noted is as little true as what it wrote
		}
	}
	if t.touched {
		return t.readHolds()
	}
	return nil
}

// prepare takes in what others changed, tells of a locked time, and writes the orders of the stop journal, in this order and
// before any request: a resume thus lifts a pause that is so far only in the journal.
func (s *Store) prepare(t *tx) error {
	var version int64
	if err := t.get(&version, "PRAGMA data_version"); err != nil {
		return err
	}
	if t.version = version; version != s.dataVersion {
		if err := s.takeIn(t); err != nil {
			return err
		}
		s.changedOutside()
	}
	if err := s.reportLock(t); err != nil {
		return err
	}
	return s.applyJournal(t)
}

// savepoint runs fn so that its failure undoes only what it did itself. An error of the transaction as a whole is returned
// as it is and ends the group.
func (t *tx) savepoint(fn func(*tx) error) error {
	if err := t.s.exec("SAVEPOINT request"); err != nil {
		return err
	}
	err := fn(t)
	if troubleOf(err) != none {
		return err
	}
	if err != nil {
		if rerr := t.s.exec("ROLLBACK TO request"); rerr != nil {
			return rerr
		}
	}
	if rerr := t.s.exec("RELEASE request"); rerr != nil {
		return rerr
	}
	return err
}

// refuse treats a batch whose transaction failed as not applied: what has a deadline fails, the rest is tried again.
func (s *Store) refuse(batch []*request, err error) {
	var keep []*request
	for _, r := range batch {
		if r.dated {
			r.finish(s.writeError(err))
		} else {
			r.err = nil
			keep = append(keep, r)
		}
	}
	s.queue.putBack(keep)
}
