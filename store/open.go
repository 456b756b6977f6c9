// Package store owns cortex.db: what dispatches, holds and events there are, and what happened to them. It also owns the
// two files that stand in for the database when that can't be written or is an old copy, stop.journal and ids. Its writes
// are durable when they are answered. It decides nothing about what to start, kill or retry, and never looks at processes
// but to name who holds the database's lock.
//
// One goroutine, the write loop, has the only connection that writes, and groups what waits into one transaction. Nothing
// opens cortex.db, cortex.db-wal or cortex.db-shm but SQLite: closing any other descriptor of such a file would drop the
// POSIX locks of the whole process (sqlite.org/howtocorrupt.html, 2.2), and an outside program would then take the WAL away.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/jmoiron/sqlx"
	"golang.org/x/sys/unix"

	"cortex"
)

const (
	openPatience  = time.Second            // Open returns after it, locked or not
	readTimeout   = 5 * time.Second        // the longest read: a reader keeps the WAL from being emptied
	readBusy      = 250 * time.Millisecond // how long a reader waits for a lock, which in WAL mode is rare
	readersAtOnce = 4
	stmtCache     = 64 // prepared statements kept by a connection
)

// Options of Open.
type Options struct {
	Home string           // the state folder, which is there; cortex.db, runs/, ids and stop.journal are in it
	Log  *slog.Logger     // required; with its component
	Anew bool             // make a database also where runs/ shows that there was one
	Now  func() time.Time // the wall clock; nil means time.Now
}

// Store is the open database. Its methods may be called from any goroutine until Close.
type Store struct {
	home, runs, path string
	log              *slog.Logger
	now              func() time.Time
	opened           time.Time

	queue      queue
	mem        *memory
	ids        *ids
	journal    *journal
	contention contention

	ready   chan struct{}
	fatal   chan error
	outside chan struct{}

	// The write loop's own; nobody else touches these while it runs.
	db          *sqlx.DB
	conn        *sqlx.Conn
	brought     int // how many of the steps of bringUp are done
	dataVersion int64
	locks       lockProbe
	inode       uint64
	walInode    uint64
	leftWAL     bool
	beforeOpen  stamp
	wants       []*checkpointWant
	owed        bool // the main file is to be written once nothing runs
	whole       bool // the checkpoint of the pause in force was done
	nextWAL     int64
	dropped     int

	poked       chan struct{}
	outsidePoke atomic.Bool
	live        atomic.Int64
	blocked     atomic.Bool // the last checkpoint was kept from finishing
	closing     atomic.Bool
	closeOnce   sync.Once
	closeErr    error
	closeUntil  atomic.Pointer[context.Context]
	written     chan struct{} // closed when the write loop has ended

	watcher *fsnotify.Watcher
	watched chan struct{} // closed when the watching goroutine has ended

	readers  *sqlx.DB // set before readable is
	readable atomic.Bool
	reads    readGate
}

// Open opens the database in o.Home, making it where there is none, and brings it to this program's schema. A file that is
// not ours, newer or damaged is refused (ErrForeign, ErrNewer, ErrCorrupt) and not changed, and so is, but for o.Anew, a home
// whose database is gone (ErrMissing): an empty one would know of no hold. Where another process holds its
// lock, Open returns after a second with a Store that is not Ready and goes on trying: writes wait, each to its own deadline,
// reads give ErrLocked unless the schema could be read, and a hold of kind db is in force.
func Open(o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	path, err := databasePath(o.Home)
	if err != nil {
		return nil, err
	}
	s := &Store{
		home: o.Home, runs: filepath.Join(o.Home, "runs"), path: path, log: o.Log, now: o.Now,
		opened: o.Now(), mem: newMemory(), contention: contention{patience: lockPatience, now: o.Now},
		ready: make(chan struct{}), fatal: make(chan error, 1), outside: make(chan struct{}, 1),
		poked: make(chan struct{}, 1), written: make(chan struct{}), watched: make(chan struct{}), nextWAL: walCheckpoint,
	}
	s.queue.poke = s.poke
	s.live.Store(unknownLive)
	s.reads.init()
	if err := s.prepareFiles(o.Anew); err != nil {
		return nil, err
	}
	s.watch()
	go s.writeLoop()
	return s.awaitReady()
}

// awaitReady gives the write loop openPatience to get the database open.
func (s *Store) awaitReady() (*Store, error) {
	timer := time.NewTimer(openPatience)
	defer timer.Stop()
	select {
	case <-s.ready:
	case <-timer.C:
		s.log.Warn("the database can't be opened yet", "file", s.path, "err", s.contention.err())
	case err := <-s.fatal:
		return nil, errors.Join(err, s.Close(background))
	}
	return s, nil
}

// databasePath is where the file truly is: SQLite keeps -wal and -shm beside the target of a link.
func databasePath(home string) (string, error) {
	home, err := filepath.Abs(home)
	if err != nil {
		return "", err
	}
	path := filepath.Join(home, "cortex.db")
	resolved, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	return resolved, err
}

// prepareFiles looks at the file before anything may change it, and opens what is beside it.
func (s *Store) prepareFiles(anew bool) error {
	s.beforeOpen = stampOf(s.path)
	wal := stampOf(s.path + "-wal")
	s.leftWAL = wal.Size > 0
	if err := inspect(s.path, s.leftWAL); err != nil {
		return err
	}
	if s.beforeOpen.Size == 0 && !anew {
		if n := s.countRuns(); n > 0 {
			return missing(s.path, n)
		}
	}
	if err := os.Mkdir(s.runs, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the folder of the runs: %w", err)
	}
	// mknod(2) makes the file with its mode and opens no descriptor.
	err := unix.Mknod(s.path, unix.S_IFREG|0o600, 0)
	if err == nil {
		err = syncDir(filepath.Dir(s.path))
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make %s: %w", s.path, err)
	}
	for _, f := range []string{s.path, s.path + "-wal", s.path + "-shm"} {
		if err := os.Chmod(f, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("keep %s from others: %w", f, err)
		}
	}
	if s.ids, err = openIDs(s.home, s.runs, s.log); err != nil {
		return err
	}
	if err := s.checkMixture(); err != nil {
		return err
	}
	if s.journal, err = openJournal(s.home, s.log); err != nil {
		return err
	}
	s.mem.orders = s.journal.found()
	return nil
}

// dsn is a URI of sqlite.org/uri.html with go-sqlite3's own parameters.
func dsn(path string, options ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(options); i += 2 {
		q.Set(options[i], options[i+1])
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
}

// bringUp opens the database step by step; one that fails (locked, disk full) is where the next call goes on. A
// *cortex.Error is final. Called by the write loop.
func (s *Store) bringUp() error {
	steps := []func() error{s.connect, s.claimFile, s.useWAL, s.readEarly, s.takeLock, s.finishOpen}
	for s.brought < len(steps) {
		if err := steps[s.brought](); err != nil {
			return err
		}
		s.brought++
	}
	return nil
}

// connect opens the writer's one connection. The pragmas of the URI need no lock.
func (s *Store) connect() error {
	if s.db == nil {
		db, err := sqlx.Open("sqlite3", dsn(s.path, "mode", "rw", "_busy_timeout", "0", "_synchronous", "FULL",
			"_foreign_keys", "on", "_stmt_cache_size", fmt.Sprint(stmtCache)))
		if err != nil {
			return err
		}
		db.SetMaxOpenConns(1)
		s.db = db
	}
	conn, err := s.db.Connx(background)
	if err != nil {
		return err
	}
	s.conn = conn
	s.inode = stampOf(s.path).Inode
	return nil
}

// claimFile makes a new file ours. The mark is in the main file before that becomes a WAL database, so that it can always be
// told without the WAL.
func (s *Store) claimFile() error {
	h, err := s.head()
	if err == nil {
		err = h.judge(s.path, true)
	}
	if err != nil || h.application == applicationID {
		return err
	}
	if err := s.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err = s.exec(fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	if err == nil {
		err = s.exec("COMMIT")
	}
	if err != nil {
		s.rollback()
	}
	return err
}

// head reads the head over the writer's connection.
func (s *Store) head() (head, error) {
	var h head
	for _, q := range []struct {
		to    *int64
		query string
	}{
		{&h.application, "PRAGMA application_id"}, {&h.version, "PRAGMA user_version"},
		{&h.tables, "SELECT count(*) FROM sqlite_master"},
	} {
		if err := s.conn.GetContext(background, q.to, q.query); err != nil {
			return head{}, err
		}
	}
	return h, nil
}

// useWAL sets the journal mode (a backup may have another) and turns SQLite's own checkpoints off: when the main file is
// written is promised to operators who copy it.
func (s *Store) useWAL() error {
	var mode string
	if err := s.conn.GetContext(background, &mode, "PRAGMA journal_mode = WAL"); err != nil {
		return err
	}
	if mode != "wal" {
		return &cortex.Error{Reason: cortex.ReasonInternal, Message: s.path + " can't be used in WAL mode",
			Hint: "Its file system must allow shared memory (network file systems don't): use another HOME.",
			Err:  fmt.Errorf("journal mode is %s", mode)}
	}
	if err := s.exec("PRAGMA wal_autocheckpoint = 0"); err != nil {
		return err
	}
	return s.exec(fmt.Sprintf("PRAGMA journal_size_limit = %d", walCheckpoint))
}

// readEarly lets reads begin before the lock is to be had, where the schema is already ours.
func (s *Store) readEarly() error {
	h, err := s.head()
	if err != nil || h.version != int64(latest()) {
		return err
	}
	return s.startReading()
}

// startReading fills the memory and opens the readers.
func (s *Store) startReading() error {
	if s.readable.Load() {
		return nil
	}
	if _, err := s.reload(); err != nil {
		return err
	}
	db, err := sqlx.Open("sqlite3", dsn(s.path, "mode", "ro", "_busy_timeout", fmt.Sprint(readBusy.Milliseconds()),
		"_query_only", "on", "_stmt_cache_size", fmt.Sprint(stmtCache)))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(readersAtOnce)
	db.SetMaxIdleConns(readersAtOnce)
	s.readers = db
	s.readable.Store(true)
	return nil
}

// takeLock proves that the database can be written, and migrates it. It reads the version with the lock in hand: who held it
// until now may have changed it.
func (s *Store) takeLock() error {
	if err := s.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	h, err := s.head()
	s.rollback()
	switch {
	case err != nil:
		return err
	case h.version > int64(latest()):
		return newer(s.path, int(h.version))
	case h.version < int64(latest()):
		return s.migrate(int(h.version))
	}
	return nil
}

// finishOpen makes the store Ready.
func (s *Store) finishOpen() error {
	if err := s.startReading(); err != nil {
		return err
	}
	if err := s.raiseSequences(); err != nil {
		return err
	}
	s.reportReplaced()
	if !s.leftWAL && s.beforeOpen.Size == 0 {
		if _, err := s.checkpoint(); err != nil { // a new file: its schema belongs into a copy of it
			return err
		}
	}
	s.walInode = stampOf(s.path + "-wal").Inode
	s.ids.mark(stampOf(s.path))
	close(s.ready)
	return nil
}

// raiseSequences keeps SQLite from giving an id that was used before the file became an older copy, to a row that a person
// inserts.
func (s *Store) raiseSequences() error {
	if err := s.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := s.readSequences()
	for kind, table := range idTables {
		if err != nil {
			break
		}
		err = s.raiseSequence(table, s.ids.highest(kind))
	}
	if err == nil {
		err = s.exec("COMMIT")
	}
	if err != nil {
		s.rollback()
	}
	return err
}

func (s *Store) raiseSequence(table string, used int64) error {
	res, err := s.conn.ExecContext(background, "UPDATE sqlite_sequence SET seq = MAX(seq, ?) WHERE name = ? AND seq < ?",
		used, table, used)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 || used == 0 {
		return err
	}
	_, err = s.conn.ExecContext(background, `INSERT INTO sqlite_sequence (name, seq)
		SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?)`, table, used, table)
	return err
}

// readSequences notes the highest ids that the database knows.
func (s *Store) readSequences() error {
	for kind, table := range idTables {
		var highest int64
		err := s.conn.GetContext(background, &highest, fmt.Sprintf(`SELECT MAX(
			COALESCE((SELECT MAX(seq) FROM sqlite_sequence WHERE name = '%[1]s'), 0),
			COALESCE((SELECT MAX(id) FROM %[1]s), 0))`, table))
		if err != nil {
			return err
		}
		s.ids.see(kind, highest)
	}
	return nil
}

// reportReplaced says when the file is not the one that cortex left. With a WAL beside it that is dangerous: SQLite has
// just applied that to it.
func (s *Store) reportReplaced() {
	seen := s.ids.seen()
	if seen == (stamp{}) || seen == s.beforeOpen {
		return
	}
	ev := cortex.Event{Type: cortex.EventDatabaseReplaced, Severity: cortex.Info,
		Message: "cortex.db was changed or replaced while cortex was not running"}
	if s.leftWAL {
		ev.Severity = cortex.Warning
		ev.Message = "cortex.db was changed or replaced while a write-ahead log (cortex.db-wal) of the time before was left " +
			"beside it; SQLite has applied that log to it. If a backup was restored, restore it again, by: cortex db restore FILE"
	}
	if s.beforeOpen.Size == 0 {
		ev.Severity, ev.Message = cortex.Warning, "cortex.db was gone and has been made anew from what runs/ knows"
	}
	s.post("event", func(t *tx) error { return t.event(ev) })
}

// Ready is closed when the database can be written for the first time.
func (s *Store) Ready() <-chan struct{} { return s.ready }

func (s *Store) isReady() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// Fatal delivers, at most once, an error found after Open after which nothing is written any more: the daemon should end
// with it.
func (s *Store) Fatal() <-chan error { return s.fatal }

// Outside delivers a value when something changed that no caller of this store did: rows or holds by another program, the
// db hold. Several changes may come as one.
func (s *Store) Outside() <-chan struct{} { return s.outside }

func (s *Store) signalOutside() {
	select {
	case s.outside <- struct{}{}:
	default:
	}
}
