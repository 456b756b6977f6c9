package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/jmoiron/sqlx"

	"cortex"
)

// countRuns is how many dispatches runs/ knows. What can't be read is reported by whoever needs it.
func (s *Store) countRuns() int {
	folders, err := os.ReadDir(s.runs)
	if err != nil {
		return 0
	}
	n := 0
	for _, f := range folders {
		if id, err := strconv.ParseInt(f.Name(), 10, 64); err == nil && id > 0 && f.IsDir() {
			n++
		}
	}
	return n
}

// inspect refuses a file that is not for this program, without changing it. It reads the main file as immutable: no lock is
// taken, no WAL is applied, nothing is made beside it. Only where a WAL was left may the header be behind, and it is read
// through SQLite's index of the WAL.
func inspect(path string, leftWAL bool) error {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return foreign(path, "it is no regular file")
	}
	if st.Size() == 0 {
		return nil
	}
	head, err := readHead(path, "immutable", "1")
	if err == nil {
		err = head.judge(path, !leftWAL)
	}
	if err == nil && leftWAL {
		if head, err = readHead(path); err == nil {
			err = head.judge(path, true)
		}
	}
	var told *cortex.Error
	switch {
	case err == nil || errors.As(err, &told):
		return err
	case troubleOf(err) == hopeless:
		return corrupt(path, err)
	case troubleOf(err) == locked || troubleOf(err) == full:
		return nil // known as ours, or as nobody's yet; the write loop looks again when it can
	}
	return fmt.Errorf("look at %s: %w", path, err)
}

// Sound is nil where the database in home is this program's and has no damage that SQLite finds (PRAGMA integrity_check). It is
// called while no daemon runs. A WAL that a crash left is applied, as by any program that opens the file.
func Sound(ctx context.Context, home string) error {
	path, err := databasePath(home)
	if err != nil {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.Size() == 0 {
		return corrupt(path, errors.New("it is empty"))
	}
	leftWAL := stampOf(path+"-wal").Size > 0
	if err := inspect(path, leftWAL); err != nil {
		return err
	}
	how := []string{"immutable", "1"} // a WAL database can't be read otherwise without making files beside it
	if leftWAL {
		how = []string{"mode", "rw", "_busy_timeout", "1000"}
	}
	db, err := sqlx.Open("sqlite3", dsn(path, how...))
	if err != nil {
		return err
	}
	defer db.Close()
	if err := undamaged(ctx, db, path); err != nil {
		return err
	}
	var version int64
	if err := db.GetContext(ctx, &version, "PRAGMA user_version"); err != nil || version == 0 {
		return corrupt(path, errors.Join(errors.New("it has no schema"), err))
	}
	return nil
}

// undamaged is nil where SQLite finds no damage, and else ErrCorrupt.
func undamaged(ctx context.Context, db *sqlx.DB, path string) error {
	var found string
	if err := db.GetContext(ctx, &found, "PRAGMA integrity_check(1)"); err != nil {
		return corrupt(path, err)
	}
	if found != "ok" {
		return corrupt(path, errors.New(found))
	}
	return nil
}

// head is what tells whose a database is.
type head struct{ application, version, tables int64 }

// judge refuses a head that is not ours. An empty one, and with final false one whose tables may be in the WAL, is nobody's.
func (h head) judge(path string, final bool) error {
	switch {
	case h.application == applicationID && h.version > int64(latest()):
		return newer(path, int(h.version))
	case h.application == applicationID:
		return nil
	case h.application != 0:
		return foreign(path, fmt.Sprintf("its application id is %#x", h.application))
	case h.tables > 0 || (final && h.version != 0):
		return foreign(path, fmt.Sprintf("it has %d tables, views and indexes of another program", h.tables))
	}
	return nil
}

// readHead reads the head over a connection of its own that can't write.
func readHead(path string, options ...string) (head, error) {
	db, err := sqlx.Open("sqlite3", dsn(path, append([]string{"mode", "ro", "_busy_timeout", "100"}, options...)...))
	if err != nil {
		return head{}, err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	var h head
	if err := db.Get(&h.application, "PRAGMA application_id"); err != nil {
		return head{}, err
	}
	if err := db.Get(&h.version, "PRAGMA user_version"); err != nil {
		return head{}, err
	}
	if err := db.Get(&h.tables, "SELECT count(*) FROM sqlite_master"); err != nil {
		return head{}, err
	}
	return h, nil
}
