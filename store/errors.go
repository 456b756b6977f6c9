package store

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/mattn/go-sqlite3"

	"cortex"
)

// What callers tell apart. Those of the file itself (newer, foreign, corrupt, locked, full) come wrapped in a *cortex.Error
// that says what to do.
var (
	ErrLocked     = errors.New("the database is locked")
	ErrHung       = errors.New("a write to the database hangs")
	ErrNotFound   = errors.New("no such dispatch")
	ErrHeld       = errors.New("held back")
	ErrFull       = errors.New("all slots are taken")
	ErrKeyUsed    = errors.New("the key was used for another request")
	ErrNotPending = errors.New("not pending")
	ErrNotRunning = errors.New("not running in this attempt")
	ErrDiskFull   = errors.New("no room to write")
	ErrNewer      = errors.New("written by a newer cortex")
	ErrForeign    = errors.New("not a database of cortex")
	ErrCorrupt    = errors.New("damaged")
	ErrMissing    = errors.New("gone")
	ErrReplaced   = errors.New("replaced while in use")
	ErrClosed     = errors.New("the store is closed")
)

// A trouble is what an error of SQLite means for everybody, not only for the statement that met it.
type trouble int

const (
	none     trouble = iota // the statement's own: a constraint, a value
	locked                  // another process holds the lock: try again
	full                    // no room: try again
	broken                  // can't write for another reason: try again, slowly
	hopeless                // no database, or malformed
)

// troubleOf classifies by SQLite's result codes (sqlite.org/rescode.html).
func troubleOf(err error) trouble {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return none
	}
	switch e.Code {
	case sqlite3.ErrBusy, sqlite3.ErrLocked, sqlite3.ErrProtocol:
		return locked
	case sqlite3.ErrFull:
		return full
	case sqlite3.ErrIoErr, sqlite3.ErrCantOpen:
		// SHMSIZE: the index of the WAL, 32 KiB in cortex.db-shm, could not be allocated.
		if e.SystemErrno == syscall.ENOSPC || e.SystemErrno == syscall.EDQUOT || e.ExtendedCode == sqlite3.ErrIoErrSHMSize {
			return full
		}
		return broken
	case sqlite3.ErrNomem, sqlite3.ErrReadonly, sqlite3.ErrPerm, sqlite3.ErrAuth:
		return broken
	case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
		return hopeless
	}
	return none
}

// passing reports whether an error of opening may be gone at the next try: a lock, a full disk, an I/O error. What the
// permissions or the schema forbid stays forbidden.
func passing(err error) bool {
	var e sqlite3.Error
	return troubleOf(err) == locked || troubleOf(err) == full || (errors.As(err, &e) && e.Code == sqlite3.ErrIoErr)
}

// isTaken reports whether err says that an id is taken.
func isTaken(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && e.ExtendedCode == sqlite3.ErrConstraintPrimaryKey
}

// lockedError is for people: who holds the lock.
func (s *Store) lockedError() error {
	hint := fmt.Sprintf("%s is locked by another program; find it with: lsof %s %s-shm", s.path, s.path, s.path)
	if who, ok := s.holder(); ok {
		hint = fmt.Sprintf("%s is locked by %s: end it or wait for it, then try again", s.path, who)
	}
	return &cortex.Error{Reason: cortex.ReasonDBLocked, Message: "Database lock timeout", Hint: hint + ". Nothing was changed.",
		Err: ErrLocked}
}

// unknownError is for people: a commit hangs.
func (s *Store) unknownError() error {
	return s.hungError("A write to the database hangs: whether this was done is not known yet",
		"Look again when it does; a submit may be repeated with the same idempotency key", ErrHung)
}

func (s *Store) hungError(what, then string, err error) error {
	since, _ := s.contention.hung()
	return &cortex.Error{Reason: cortex.ReasonDBHung, Message: what, Err: err,
		Hint: fmt.Sprintf("The file system of %s has not answered since %s (dmesg, df). %s.", s.home, since.Format(time.TimeOnly), then)}
}

// writeError tells of a write that could not be made; troubles of the file become a *cortex.Error.
func (s *Store) writeError(err error) error {
	switch troubleOf(err) {
	case locked:
		return s.lockedError()
	case full:
		return &cortex.Error{Reason: cortex.ReasonDiskFull, Message: "The disk is full: nothing was changed",
			Hint: "Free space on the file system of " + s.home + ", then try again.", Err: errors.Join(ErrDiskFull, err)}
	case broken:
		return &cortex.Error{Reason: cortex.ReasonInternal, Message: "The database can't be written: nothing was changed",
			Hint: "See the log for the system's error; check the file system of " + s.home + ".", Err: err}
	case hopeless:
		return corrupt(s.path, err)
	}
	return err
}

// roomError is writeError for a file that is not the database's.
func (s *Store) roomError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &cortex.Error{Reason: cortex.ReasonDiskFull, Message: "The disk is full: nothing was changed",
			Hint: "Free space on the file system of " + s.home + ", then try again.", Err: errors.Join(ErrDiskFull, err)}
	}
	return err
}

// gaveUp says why a request whose context has ended was not carried out.
func (s *Store) gaveUp(ctx context.Context) error {
	if _, hung := s.contention.hung(); hung {
		return s.hungError("A write to the database hangs: nothing was changed", "Try again when it does", ErrLocked)
	}
	if err := s.contention.err(); err != nil {
		return s.writeError(err)
	}
	if !s.isReady() {
		return s.lockedError()
	}
	return context.Cause(ctx)
}

func newer(path string, version int) error {
	return &cortex.Error{Reason: cortex.ReasonInternal, Err: ErrNewer,
		Message: fmt.Sprintf("%s has schema %d, and this cortex knows up to %d", path, version, latest()),
		Hint: fmt.Sprintf("Run the newer cortex that wrote it; or restore a backup of this version: cortex db restore FILE. "+
			"%s was not changed.", path)}
}

func foreign(path, what string) error {
	return &cortex.Error{Reason: cortex.ReasonInternal, Err: ErrForeign,
		Message: fmt.Sprintf("%s is not a database of cortex: %s", path, what),
		Hint:    fmt.Sprintf("Move it away, or start cortex with another HOME. The file was not changed. (%s)", path)}
}

func corrupt(path string, err error) error {
	return &cortex.Error{Reason: cortex.ReasonInternal, Err: errors.Join(ErrCorrupt, err),
		Message: fmt.Sprintf("%s is damaged or no SQLite database", path),
		Hint:    "Restore a backup: cortex db restore FILE; where there is none, make it anew from the folder runs/: cortex db rebuild"}
}

func missing(path string, runs int) error {
	return &cortex.Error{Reason: cortex.ReasonInternal, Err: ErrMissing,
		Message: fmt.Sprintf("%s is gone, and the folder runs/ beside it has %d dispatches", path, runs),
		Hint: "Restore a backup: cortex db restore FILE; where there is none, make it anew from runs/: cortex db rebuild. (To begin " +
			"with nothing, move runs/ away.)"}
}

func cantOpen(path string, err error) error {
	return &cortex.Error{Reason: cortex.ReasonInternal, Err: err, Message: path + " can't be opened",
		Hint: fmt.Sprintf("It and its folder must belong to this user and be writable: ls -la %s*", path)}
}

func replaced(path string) error {
	return &cortex.Error{Reason: cortex.ReasonInternal, Err: ErrReplaced,
		Message: fmt.Sprintf("%s was moved, deleted or replaced while cortex was using it", path),
		Hint: fmt.Sprintf("Restart cortex: it then works with the file that is at %s now, and takes in from runs/ what that "+
			"does not know.", path)}
}
