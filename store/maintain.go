package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"cortex"
)

const (
	walCheckpoint = 2 << 20   // bytes of WAL from which it is emptied, while not paused
	walMore       = 512 << 10 // bytes that must be added before a checkpoint that was blocked is tried again
	walLimit      = 256 << 20 // bytes from which the health check fails

	checkpointPatience = 2 * time.Second       // how long a pause waits for a reader
	checkpointRetry    = 20 * time.Millisecond // with a pause waiting
	settle             = 50 * time.Millisecond // changes of the files within it are looked at once
	probeTimeout       = 500 * time.Millisecond
	unknownLive        = -1
)

// A checkpointWant is a pause that is committed and waits for the main file to be whole.
type checkpointWant struct {
	until    time.Time
	done     bool          // set before answered is closed
	answered chan struct{} // closed when it is done or was given up
}

func (w *checkpointWant) answer(done bool) {
	w.done = done
	close(w.answered)
}

// ErrBlocked says that a reader or writer kept a checkpoint from finishing.
var ErrBlocked = errors.New("another program keeps the database's log from being emptied")

// Checkpoint writes everything committed into the main file, before a pause is answered, so that a copy of it is whole. It
// waits for other programs at most 2 s; then the error is ErrBlocked, an event tells, and a health check fails until a later
// one succeeds. During a pause for which it was done already it does nothing: somebody may be copying the file.
func (s *Store) Checkpoint(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, checkpointPatience, ErrBlocked)
	defer cancel()
	var w *checkpointWant
	err := s.do(ctx, func(t *tx) error {
		w = &checkpointWant{answered: make(chan struct{})}
		t.wants = append(t.wants, w)
		return nil
	})
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	hung := time.NewTimer(checkpointPatience + commitPatience)
	defer hung.Stop()
	select {
	case <-w.answered: // the write loop gives up by itself, unless it hangs
		if w.done {
			return nil
		}
	case <-hung.C:
	}
	return ErrBlocked
}

// SetLive says how many dispatches run. While paused the main file is written once when that is 0 and the last end is
// recorded, in whichever order the two come.
func (s *Store) SetLive(n int) {
	old := s.live.Swap(int64(n))
	if n == 0 && old != 0 {
		s.poke()
	}
}

// afterCommit takes over what a transaction asked for.
func (s *Store) afterCommit(t *tx) {
	until := time.Now().Add(checkpointPatience)
	for _, w := range t.wants {
		w.until = until
	}
	s.wants = append(s.wants, t.wants...)
	if t.ended || len(t.applied) > 0 {
		s.owed = true
	}
	if t.fresh {
		s.whole = false
	}
	if len(t.applied) > 0 && len(s.mem.waitingOrders()) == 0 {
		if err := s.journal.reset(t.applied); err != nil {
			s.log.Error("the stop journal can't be emptied", "err", err)
		}
	}
}

// checkpoints writes the WAL into the main file where that is due, and says when to look again:
// for a pause, before it is answered; while not paused, from walCheckpoint on; while paused never, but once when nothing
// runs any more after the last end or another's change, since an operator may be copying the file.
func (s *Store) checkpoints() time.Duration {
	size := stampOf(s.path + "-wal").Size
	paused := s.paused()
	switch {
	case len(s.wants) > 0:
		return s.checkpointForPause()
	case size == 0:
		s.owed = false
		s.blocked.Store(false)
		return untilPoked
	case paused && s.owed && s.nothingRuns():
	case !paused && (size >= s.nextWAL || s.blocked.Load()):
	default:
		return untilPoked
	}
	done, err := s.checkpoint()
	s.logCheckpoint(err)
	if !done {
		s.nextWAL = size + walMore
		if paused || s.blocked.Load() {
			return retryIdle
		}
		return untilPoked
	}
	s.owed = false
	return untilPoked
}

// checkpointForPause tries until it is done or the pause has waited long enough.
func (s *Store) checkpointForPause() time.Duration {
	done, err := s.whole && s.paused() && !s.blocked.Load(), error(nil)
	if !done {
		done, err = s.checkpoint()
		s.logCheckpoint(err)
		s.owed = !done
	}
	s.whole = done
	if !done && time.Now().Before(s.wants[0].until) {
		return checkpointRetry
	}
	if !done && !s.blocked.Swap(true) {
		s.post("event", func(t *tx) error {
			return t.event(cortex.Event{Type: cortex.EventCheckpointBlocked, Severity: cortex.Warning,
				Message: "A program that reads the database kept the checkpoint before the pause from finishing: a copy of " +
					"cortex.db may lack what is in cortex.db-wal"})
		})
	}
	for _, w := range s.wants {
		w.answer(done)
	}
	s.wants = nil
	return untilPoked
}

// nothingRuns reports whether nothing lives and the table knows it: an end may be on its way into it.
func (s *Store) nothingRuns() bool {
	if s.live.Load() != 0 {
		return false
	}
	var n int
	err := s.conn.GetContext(background, &n, "SELECT count(*) FROM dispatches WHERE status = 'running' AND accepted = 1")
	return err == nil && n == 0 // locked: the next step asks again
}

func (s *Store) logCheckpoint(err error) {
	if err != nil && troubleOf(err) != locked {
		s.log.Error("checkpoint failed", "err", err)
	}
}

// checkpoint writes all frames of the WAL into the main file and empties the WAL. False, without an error, when a reader or
// writer is in the way (the connection's busy timeout is 0, so that it does not wait).
func (s *Store) checkpoint() (bool, error) {
	var r struct {
		Busy         int `db:"busy"`
		Log          int `db:"log"`
		Checkpointed int `db:"checkpointed"`
	}
	s.ids.intend()
	err := s.conn.GetContext(background, &r, "PRAGMA wal_checkpoint(TRUNCATE)")
	if err != nil || r.Busy != 0 {
		return false, err
	}
	s.blocked.Store(false)
	s.nextWAL = walCheckpoint
	s.ids.mark(stampOf(s.path))
	return true, nil
}

// watch notices writes of other programs. Without it (no inotify instance left) they are noticed at cortex's own next write.
func (s *Store) watch() {
	w, err := fsnotify.NewWatcher()
	if err == nil {
		err = w.Add(filepath.Dir(s.path))
	}
	if err != nil {
		s.log.Warn("changes of the database by others will be noticed late", "err", err)
		if w != nil {
			w.Close()
		}
		close(s.watched)
		return
	}
	s.watcher = w
	go s.watchLoop()
}

func (s *Store) stopWatching() error {
	var err error
	if s.watcher != nil {
		err = s.watcher.Close()
	}
	<-s.watched
	return err
}

// watchLoop turns bursts of changes into one look of the write loop's.
func (s *Store) watchLoop() {
	defer close(s.watched)
	var due <-chan time.Time
	for {
		select {
		case ev, ok := <-s.watcher.Events:
			if !ok {
				return
			}
			if due == nil && (ev.Name == s.path || ev.Name == s.path+"-wal") {
				due = time.After(settle)
			}
		case err, ok := <-s.watcher.Errors:
			if !ok {
				return
			}
			s.log.Warn("watching the database", "err", err)
		case <-due:
			due = nil
			s.outsidePoke.Store(true)
			s.poke()
		}
	}
}

// lookOutside takes in what others changed, and says when it must look again: a writer's last change of a file comes before
// its commit can be seen, by the time of an fsync, and the commit itself (in the shared memory of the -shm file) is no event of
// a file. Called by the write loop.
func (s *Store) lookOutside() time.Duration {
	now := stampOf(s.path)
	if now.Inode != s.inode {
		s.fail(replaced(s.path))
		return untilPoked
	}
	again := s.othersWrite() // asked before the look: one that ends in between is seen by it
	changed, err := s.reload()
	if changed {
		s.changedOutside()
	}
	if wal := stampOf(s.path + "-wal"); wal.Inode != 0 {
		s.walInode = wal.Inode
	}
	s.ids.mark(now)
	if err != nil {
		s.log.Debug("can't look at what others changed", "err", err)
	}
	if again || err != nil {
		s.outsidePoke.Store(true)
		return retryIdle
	}
	return untilPoked
}

// changedOutside tells that others changed the database.
func (s *Store) changedOutside() {
	s.owed = true
	s.signalOutside()
}

// reload reads counts, holds and ids anew in one read transaction, where others changed the database since they were last
// read, and reports whether they did.
func (s *Store) reload() (bool, error) {
	if err := s.exec("BEGIN"); err != nil {
		return false, err
	}
	defer s.rollback()
	t := &tx{s: s, now: s.now()}
	if err := t.get(&t.version, "PRAGMA data_version"); err != nil || t.version == s.dataVersion {
		return false, err
	}
	if err := s.takeIn(t); err != nil {
		return false, err
	}
	s.dataVersion = t.version
	s.mem.publish(t)
	return true, nil
}

// takeIn reads what is kept in memory.
func (s *Store) takeIn(t *tx) error {
	var rows []struct {
		Status string `db:"status"`
		N      int    `db:"n"`
	}
	if err := t.list(&rows, "SELECT status, count(*) AS n FROM dispatches GROUP BY status"); err != nil {
		return err
	}
	t.counts = map[cortex.Status]int{}
	for _, r := range rows {
		t.counts[cortex.Status(r.Status)] = r.N
	}
	if err := t.get(&t.failures, "SELECT COALESCE(SUM(n), 0) FROM totals WHERE name = 'failed'"); err != nil {
		return err
	}
	err := t.get(&t.foreign, "SELECT count(*) FROM dispatches WHERE status IN ('pending', 'pending_retry') AND COALESCE(accepted, 0) <> 1")
	if err != nil {
		return err
	}
	if err := s.readSequences(); err != nil {
		return err
	}
	return t.readHolds()
}

// Checks is the health of what this package owns. It waits for the database at most half a second.
func (s *Store) Checks(ctx context.Context) []cortex.Check {
	return []cortex.Check{s.checkDatabase(ctx), s.checkWAL(), s.checkCheckpoint(), s.journal.check()}
}

// checkDatabase asks the write loop for an empty transaction.
func (s *Store) checkDatabase(ctx context.Context) cortex.Check {
	c := cortex.Check{Name: "database", OK: true, Detail: "can be written"}
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, ErrLocked)
	defer cancel()
	err := s.do(ctx, func(*tx) error { return nil })
	if err == nil {
		err = s.writeError(s.contention.err()) // what the last write met: an empty transaction needs no room
	}
	if err == nil {
		return c
	}
	c.OK, c.Detail = false, err.Error()
	if told := asTold(err); told != nil {
		c.Detail, c.Hint = told.Message, told.Hint
	}
	if c.Hint == "" {
		c.Hint = "See the log; what must not be lost waits until the database can be written."
	}
	return c
}

func (s *Store) checkWAL() cortex.Check {
	size := stampOf(s.path + "-wal").Size
	c := cortex.Check{Name: "wal", OK: size < walLimit, Detail: fmt.Sprintf("%.1f MiB", float64(size)/(1<<20))}
	if !c.OK {
		c.Hint = fmt.Sprintf("A program that keeps %s open for reading, or a long pause, keeps the log from being emptied; find "+
			"it with: lsof %s", s.path, s.path)
	}
	return c
}

func (s *Store) checkCheckpoint() cortex.Check {
	if !s.blocked.Load() {
		return cortex.Check{Name: "checkpoint", OK: true, Detail: "not blocked"}
	}
	return cortex.Check{Name: "checkpoint", Detail: "a reader kept the checkpoint of the pause from finishing",
		Hint: fmt.Sprintf("Copy the database with: sqlite3 %s '.backup FILE'; or end the reader (lsof %s) and pause again", s.path,
			s.path)}
}
