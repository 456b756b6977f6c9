package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/jmoiron/sqlx"
	"golang.org/x/sys/unix"

	"cortex"
)

// besides are what SQLite keeps beside a database. The main file goes first: a WAL alone is applied to nothing.
var besides = []string{"", "-wal", "-shm"}

// Restore makes a copy of the file backup the database in home, while no daemon runs. It returns where the database that was
// there is now, "" for none, and how many dispatches the restored one has by status. A WAL beside the backup belongs to it.
// Nothing is changed unless the backup is this program's and without damage; the error says so.
func Restore(ctx context.Context, home, backup string, now time.Time) (aside string, counts map[cortex.Status]int, err error) {
	path, err := databasePath(home)
	if err != nil {
		return "", nil, err
	}
	if err := restorable(path, backup); err != nil {
		return "", nil, err
	}
	staged := path + ".restoring"
	defer func() { err = errors.Join(err, removeDatabase(staged)) }()
	if counts, err = stage(ctx, backup, staged); err != nil {
		return "", nil, unfit(backup, err)
	}
	if aside, err = SetAside(home, "restore", now); err != nil {
		return "", nil, err
	}
	if err = os.Rename(staged, path); err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return aside, nil, fmt.Errorf("put the copy of %s in place (the old database is %s): %w", backup, aside, err)
	}
	return aside, counts, nil
}

// restorable looks at the backup where it lies.
func restorable(path, backup string) error {
	st, err := os.Stat(backup)
	if err != nil {
		return fmt.Errorf("look at the backup: %w", err)
	}
	if now, err := os.Stat(path); err == nil && os.SameFile(now, st) {
		return &cortex.Error{Reason: cortex.ReasonInternal, Message: backup + " is the database itself, not a backup of it",
			Hint: "Nothing was changed. Name the file to restore."}
	}
	if st.Size() == 0 {
		return unfit(backup, fmt.Errorf("%w: it is empty", ErrCorrupt))
	}
	return unfit(backup, inspect(backup, false))
}

// unfit tells of a backup that can't be restored.
func unfit(backup string, err error) error {
	hint := "Nothing was changed. Restore another backup; where there is none, make the database anew from runs/: cortex db rebuild"
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNewer):
		hint = "Nothing was changed. Run the newer cortex that wrote it."
	case !errors.Is(err, ErrForeign) && !errors.Is(err, ErrCorrupt):
		return fmt.Errorf("nothing was changed: copy %s: %w", backup, err)
	}
	return &cortex.Error{Reason: cortex.ReasonInternal, Message: backup + " can't be restored", Hint: hint, Err: err}
}

// stage copies the backup to staged, with what its WAL has, checks the copy, and counts what is in it.
func stage(ctx context.Context, backup, staged string) (map[cortex.Status]int, error) {
	if err := removeDatabase(staged); err != nil { // of a restore that was killed
		return nil, err
	}
	for _, end := range besides[:2] {
		err := copyDurably(backup+end, staged+end)
		if err != nil && (end == "" || !errors.Is(err, fs.ErrNotExist)) {
			return nil, err
		}
	}
	db, err := sqlx.Open("sqlite3", dsn(staged, "mode", "rw", "_synchronous", "FULL"))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	counts, err := checkCopy(ctx, db, staged)
	if err == nil {
		_, err = db.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	}
	return counts, errors.Join(err, db.Close())
}

// checkCopy gives ErrCorrupt where SQLite finds damage, and else the dispatches by status.
func checkCopy(ctx context.Context, db *sqlx.DB, path string) (map[cortex.Status]int, error) {
	if err := undamaged(ctx, db, path); err != nil {
		return nil, err
	}
	var rows []struct {
		Status cortex.Status `db:"status"`
		N      int           `db:"n"`
	}
	if err := db.SelectContext(ctx, &rows, "SELECT status, count(*) AS n FROM dispatches GROUP BY status"); err != nil {
		return nil, corrupt(path, err)
	}
	counts := map[cortex.Status]int{}
	for _, r := range rows {
		counts[r.Status] = r.N
	}
	return counts, nil
}

// copyDurably copies a file durably to a name that is free.
func copyDurably(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// removeDatabase removes a database that nobody has open.
func removeDatabase(path string) error {
	var err error
	for _, end := range besides {
		if rerr := os.Remove(path + end); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// SetAside renames the database in home, with what SQLite has beside it, for what is to be done (a word of the new name), and
// returns its new path; "" where there is none. No daemon may run. Another program that has it open is an error: it would
// take the next one's WAL for its own.
func SetAside(home, before string, now time.Time) (string, error) {
	path, err := databasePath(home)
	if err != nil {
		return "", err
	}
	if who, ok := user(path); ok {
		return "", &cortex.Error{Reason: cortex.ReasonDBLocked, Message: fmt.Sprintf("%s is in use by %s", path, who),
			Hint: "Nothing was changed. End it, then try again: it would take the log of the new database for its own.", Err: ErrLocked}
	}
	stamp := fmt.Sprintf("%s.before-%s-%s", path, before, now.UTC().Format("20060102-150405"))
	aside, found := stamp, ""
	for n := 2; ; n++ { // what was set aside in the same second is kept
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		}
		aside = fmt.Sprintf("%s-%d", stamp, n)
	}
	for _, end := range besides {
		err := os.Rename(path+end, aside+end)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return "", fmt.Errorf("set the database aside: %w", err)
		default:
			found = aside
		}
	}
	return found, nil
}

// user names a process that has the database open. This one must not have.
func user(path string) (string, bool) {
	var locks lockProbe
	defer locks.close()
	pid, ok := locks.conflict(unix.F_WRLCK, path+"-shm", walLockLast, walLockLast)
	if ok && pid <= 0 {
		return "a process of another container", true
	}
	return fmt.Sprintf("process %d (%s)", pid, command(pid)), ok
}
