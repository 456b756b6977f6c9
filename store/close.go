package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"cortex"
)

func closedError() error {
	return &cortex.Error{Reason: cortex.ReasonStopping, Message: "cortex is stopping: nothing was changed",
		Hint: "Try again when it runs.", Err: ErrClosed}
}

// closeCtx is how long closing may take; only while closing.
func (s *Store) closeCtx() context.Context { return *s.closeUntil.Load() }

// Close takes no more writes, lets those that wait be tried until ctx ends, and closes the readers before the writer, so that
// SQLite takes the WAL away (a reader closed last would leave it). It never waits for a lock longer than ctx. The error
// tells of writes that were not made; a second call returns the first one's.
func (s *Store) Close(ctx context.Context) error {
	s.closeOnce.Do(func() { s.closeErr = s.close(ctx) })
	return s.closeErr
}

func (s *Store) close(ctx context.Context) error {
	s.closeUntil.Store(&ctx)
	s.queue.close(closedError())
	s.closing.Store(true)
	s.poke()
	if err := s.awaitWriter(ctx); err != nil {
		return err
	}
	err := s.stopWatching()
	s.reads.close()
	if s.readers != nil {
		err = errors.Join(err, s.readers.Close())
	}
	if s.conn != nil {
		err = errors.Join(err, s.conn.Close())
	}
	if s.db != nil {
		err = errors.Join(err, s.db.Close())
	}
	s.locks.close()
	s.setAsideWAL()
	now := s.ids.seen()
	if s.isReady() && !errors.Is(s.contention.fatal(), ErrReplaced) {
		now = stampOf(s.path)
	}
	s.ids.close(now)
	err = errors.Join(err, s.journal.close())
	if s.dropped > 0 {
		err = errors.Join(err, fmt.Errorf("%d writes were not made: %w", s.dropped, ErrLocked))
	}
	return err
}

// awaitWriter waits for the write loop to end, which it does by itself when ctx ends, unless it hangs: then the files are left
// as after a kill.
func (s *Store) awaitWriter(ctx context.Context) error {
	select {
	case <-s.written:
		return nil
	case <-ctx.Done():
	}
	patience := time.NewTimer(commitPatience)
	defer patience.Stop()
	select {
	case <-s.written:
		return nil
	case <-patience.C:
		return fmt.Errorf("close the database: %w", ErrHung)
	}
}

// setAsideWAL renames a WAL that belongs to a main file which was replaced under us. SQLite would apply it to the new one,
// which it does not fit.
func (s *Store) setAsideWAL() {
	if !errors.Is(s.contention.fatal(), ErrReplaced) || s.walInode == 0 {
		return
	}
	if stampOf(s.path+"-wal").Inode != s.walInode {
		return
	}
	for _, end := range []string{"-wal", "-shm"} {
		to := fmt.Sprintf("%s%s.replaced-%d", s.path, end, s.now().Unix())
		if err := os.Rename(s.path+end, to); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.log.Error("the log of a replaced database can't be set aside", "file", s.path+end, "err", err)
		} else if err == nil {
			s.log.Warn("the log of the replaced database was set aside", "file", to)
		}
	}
}
