package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"cortex/internal/fault"
	"cortex/internal/rlimit"
	"cortex/proc"
	"cortex/runner/record"
)

// Facts are what an attempt's folder says. A nil record is not there; a damaged one is not there either, and in Damaged.
type Facts struct {
	Attempt int
	Claim   *record.Claim
	Started *record.Started
	Order   *record.Order
	Freeze  *record.Freeze
	Exit    *record.Exit
	Verdict *record.Verdict
	Damaged map[string]error // by file: record.ErrTorn, record.ErrNewer, or of reading
}

// Begun reports whether a runner has, or had, the attempt: a revoked one never ran, nor did one that could not be started and
// is to be again. Who has a claim that can't be read is not known, but somebody has it.
func (f Facts) Begun() bool {
	if f.Exit != nil {
		return !f.Exit.Again
	}
	for _, name := range []string{record.ClaimFile, record.StartedFile, record.ExitFile, record.VerdictFile} {
		if f.Damaged[name] != nil {
			return true
		}
	}
	return f.Verdict != nil || f.Claim != nil && !f.Claim.Revoked
}

// Unknown is an error where it can't be told whether the attempt lives, or how it ended: a newer cortex has written that, or
// it can't be read at the moment (an error of the file system). What is torn will never be readable, and is no such error.
func (f Facts) Unknown() error {
	if f.Exit != nil || f.Verdict != nil {
		return nil
	}
	for _, name := range []string{record.ClaimFile, record.ExitFile, record.VerdictFile} {
		if err := f.Damaged[name]; err != nil && !errors.Is(err, record.ErrTorn) {
			return err
		}
	}
	return nil
}

// Look reads an attempt's folder. The error is fs.ErrNotExist when there is no such folder; damaged records are no error.
// Where there was no descriptor or no memory to look with (rlimit.Scarce) nothing is known of the attempt.
func Look(runs string, id int64, attempt int) (Facts, error) {
	f := Facts{Attempt: attempt, Damaged: map[string]error{}}
	if err := fault.Err("runner.look"); err != nil {
		return f, err
	}
	dir, err := record.OpenDir(runs, id, attempt)
	if err != nil {
		return f, err
	}
	defer dir.Close()
	f.Claim = look[record.Claim](dir, record.ClaimFile, &f)
	f.Started = look[record.Started](dir, record.StartedFile, &f)
	f.Order = look[record.Order](dir, record.OrderFile, &f)
	f.Freeze = look[record.Freeze](dir, record.FreezeFile, &f)
	f.Exit = look[record.Exit](dir, record.ExitFile, &f)
	f.Verdict = look[record.Verdict](dir, record.VerdictFile, &f)
	for _, err := range f.Damaged {
		if rlimit.Scarce(err) {
			return Facts{Attempt: attempt}, err
		}
	}
	return f, nil
}

func look[T any](dir *record.Dir, name string, f *Facts) *T {
	v := new(T)
	err := dir.Read(name, v)
	if err == nil {
		return v
	}
	if !errors.Is(err, fs.ErrNotExist) {
		f.Damaged[name] = err
	}
	return nil
}

// Spec reads the spec of a dispatch.
func Spec(runs string, id int64) (record.Spec, error) {
	dir, err := record.OpenDir(runs, id, 0)
	if err != nil {
		return record.Spec{}, err
	}
	defer dir.Close()
	var s record.Spec
	if err := dir.Read(record.SpecFile, &s); err != nil {
		return record.Spec{}, err
	}
	if s.ID != id {
		return record.Spec{}, fmt.Errorf("%s: %w: it is the spec of dispatch %d", dir.Path(), record.ErrTorn, s.ID)
	}
	return s, nil
}

// List returns the ids that have a folder in runs/, in no order.
func List(runs string) ([]int64, error) { return numbers[int64](runs) }

// Attempts returns the numbers of a dispatch's attempts that have a folder, in no order.
func Attempts(runs string, id int64) ([]int, error) {
	dir, err := record.OpenDir(runs, id, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return numbers[int](dir.SocketPath("."))
}

func numbers[T int | int64](folder string) ([]T, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var found []T
	for _, e := range entries {
		// Only names that cortex itself writes: "07" and "+7" are somebody else's.
		n, err := strconv.ParseInt(e.Name(), 10, 64)
		if err == nil && n > 0 && e.IsDir() && strconv.FormatInt(n, 10) == e.Name() && int64(T(n)) == n {
			found = append(found, T(n))
		}
	}
	return found, nil
}

// Revoke takes an attempt's claim, so that no runner can start it any more. It reports false when a runner has it already. A
// claim that is there and can't be read is record.ErrTorn or ErrNewer: somebody has it, or had. Folders that were removed are
// made anew.
func Revoke(runs string, id int64, attempt int, claim record.Claim) (bool, error) {
	dir, err := record.RemakeDir(runs, id, attempt)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	claim.Format, claim.Revoked = record.Format, true
	err = dir.Create(record.ClaimFile, claim)
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, record.ErrTaken) {
		return false, err
	}
	var there record.Claim
	err = dir.Read(record.ClaimFile, &there)
	return there.Revoked, err
}

// Dead reports that a process on record certainly does not live: it was in another boot or pid namespace, its pid is free,
// or another process's.
func Dead(p record.Process) bool {
	id, here := Ident(p)
	return !here || !id.Alive()
}

// Ident is the identity by which a process on record may be signalled; false where it is not of this boot and namespace.
func Ident(p record.Process) (proc.Ident, bool) {
	if p.PID <= 0 || p.Boot != proc.BootID() || p.PIDNS != proc.PIDNamespace() {
		return proc.Ident{}, false
	}
	return proc.Ident{PID: p.PID, Start: p.Start}, true
}

// TagID returns the id of the dispatch whose session carries the tag, the folder of an attempt in runs.
func TagID(runs, tag string) (int64, bool) {
	rest, ok := strings.CutPrefix(tag, runs+"/")
	if !ok {
		return 0, false
	}
	name, _, _ := strings.Cut(rest, "/")
	id, err := strconv.ParseInt(name, 10, 64)
	return id, err == nil
}

// TmuxServer is the pid of the tmux server in whose pane a runner claimed its attempt ($TMUX is socket,pid,session).
func TmuxServer(c record.Claim) (int, bool) {
	parts := strings.Split(c.Tmux, ",")
	if len(parts) < 3 {
		return 0, false
	}
	pid, err := strconv.Atoi(parts[len(parts)-2]) // the socket's path may have commas
	return pid, err == nil && pid > 1
}
