package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"cortex"
)

// readGate counts the reads that are under way, and ends them when the store closes.
type readGate struct {
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu     sync.Mutex
	closed bool // guarded by mu
	open   sync.WaitGroup
}

func (g *readGate) init() { g.ctx, g.cancel = context.WithCancelCause(context.Background()) }

func (g *readGate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.open.Add(1)
	}
	return !g.closed
}

// close interrupts what reads and waits for it.
func (g *readGate) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.cancel(ErrClosed)
	g.open.Wait()
}

// read runs fn on a connection that can't write, for at most readTimeout. ErrLocked while the database can't be read.
func (s *Store) read(ctx context.Context, fn func(context.Context, *sqlx.DB) error) error {
	if !s.readable.Load() {
		if err := s.contention.fatal(); err != nil {
			return err
		}
		return s.lockedError()
	}
	if !s.reads.enter() {
		return closedError()
	}
	defer s.reads.open.Done()
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	stop := context.AfterFunc(s.reads.ctx, cancel)
	defer stop()
	err := fn(ctx, s.readers)
	switch {
	case err == nil:
		return nil
	case s.reads.ctx.Err() != nil:
		return closedError()
	case ctx.Err() != nil:
		return errors.Join(err, context.Cause(ctx))
	}
	return s.writeError(err)
}

// Get reads one dispatch; ErrNotFound.
func (s *Store) Get(ctx context.Context, id int64) (cortex.Dispatch, error) {
	var r dispatchRow
	err := s.read(ctx, func(ctx context.Context, db *sqlx.DB) error {
		return db.GetContext(ctx, &r, "SELECT "+dispatchColumns+" FROM dispatches WHERE id = ?", id)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return cortex.Dispatch{}, fmt.Errorf("dispatch %d: %w", id, ErrNotFound)
	}
	return r.dispatch(), err
}

// Running lists the rows of status running, oldest first.
func (s *Store) Running(ctx context.Context) ([]cortex.Dispatch, error) {
	return s.query(ctx, "WHERE status = ? ORDER BY id", string(cortex.Running))
}

// stopRows reads the rows that a stop is recorded for.
func (s *Store) stopRows(ctx context.Context) ([]dispatchRow, error) {
	var rows []dispatchRow
	err := s.read(ctx, func(ctx context.Context, db *sqlx.DB) error {
		return db.SelectContext(ctx, &rows, "SELECT "+dispatchColumns+" FROM dispatches WHERE stop_order IS NOT NULL ORDER BY id")
	})
	return rows, err
}

func (s *Store) query(ctx context.Context, where string, args ...any) ([]cortex.Dispatch, error) {
	var rows []dispatchRow
	err := s.read(ctx, func(ctx context.Context, db *sqlx.DB) error {
		return db.SelectContext(ctx, &rows, "SELECT "+dispatchColumns+" FROM dispatches "+where, args...)
	})
	out := make([]cortex.Dispatch, 0, len(rows))
	for _, r := range rows {
		out = append(out, r.dispatch())
	}
	return out, err
}

// A Filter chooses dispatches; what is empty does not restrict.
type Filter struct {
	Statuses []cortex.Status
	Project  string
	Bead     string
	Since    time.Time // created at or after it
	Before   int64     // only ids below it: the last one of the page before
	Limit    int       // at most so many; 100 where it is not positive

	Unwritten map[int64]cortex.Status // what the rows of these should say
}

const defaultLimit = 100

// List is a page of dispatches, newest first. Rows that come meanwhile are on no later page.
func (s *Store) List(ctx context.Context, f Filter) ([]cortex.Dispatch, error) {
	if f.Limit <= 0 {
		f.Limit = defaultLimit
	}
	where, args, err := f.where()
	if err != nil {
		return nil, err
	}
	return s.query(ctx, where+" ORDER BY id DESC LIMIT ?", append(args, f.Limit)...)
}

func (f Filter) where() (string, []any, error) {
	conds, args := []string{"1"}, []any{}
	if len(f.Statuses) > 0 {
		in, list, err := sqlx.In("status IN (?)", f.Statuses)
		if err != nil {
			return "", nil, err
		}
		also, not := f.unwritten()
		conds, args = append(conds, fmt.Sprintf("(%s OR id IN (%s)) AND id NOT IN (%s)", in, also, not)), append(args, list...)
	}
	if f.Project != "" {
		conds, args = append(conds, "project = ?"), append(args, f.Project)
	}
	if f.Bead != "" {
		conds, args = append(conds, "bead_id = ?"), append(args, f.Bead)
	}
	if !f.Since.IsZero() {
		conds, args = append(conds, "created_at >= ?"), append(args, timeText(f.Since))
	}
	if f.Before > 0 {
		conds, args = append(conds, "id < ?"), append(args, f.Before)
	}
	return "WHERE " + strings.Join(conds, " AND "), args, nil
}

// unwritten divides the ids whose rows should say another status into those that the filter wants and the others.
func (f Filter) unwritten() (also, not string) {
	var in, out []string
	for id, status := range f.Unwritten {
		text := strconv.FormatInt(id, 10)
		if slices.Contains(f.Statuses, status) {
			in = append(in, text)
		} else {
			out = append(out, text)
		}
	}
	return strings.Join(in, ","), strings.Join(out, ",")
}

// scopeColumns are the columns that the scopes of holds and limits speak of.
var scopeColumns = map[string]string{"project": "project", "agent": "agent", "provider": "provider", "bead": "bead_id"}

// Waiter is what the queue knows of a dispatch that waits.
type Waiter struct {
	ID       int64
	Bead     string
	Lane     cortex.Lane
	Priority int
	Since    time.Time // when it was accepted; zero where a person wrote something that is no time
	Until    time.Time // it is not started before; zero: at once
}

// WaiterOf is d as the queue has it.
func WaiterOf(d cortex.Dispatch) Waiter {
	return Waiter{d.ID, d.BeadID, d.Lane(), d.Priority, timeOf(d.CreatedAt), timeOf(d.NotBefore)}
}

// Startable lists, of these dispatches, those that wait for a start and have a spec; of all where ids is nil. Holds and limits
// are not looked at. It is only a choice: Claim decides.
func (s *Store) Startable(ctx context.Context, ids []int64) ([]Waiter, error) {
	// An attempt that neither ended nor was given back lives, whatever a person wrote into status.
	where, args := "WHERE status = ? AND accepted = 1 AND "+
		"(attempts = 0 OR finished_attempt >= attempts OR last_given_back >= attempts)", []any{string(cortex.Pending)}
	if ids != nil {
		in, list, err := sqlx.In(" AND id IN (?)", ids)
		if err != nil {
			return nil, err
		}
		where, args = where+in, append(args, list...)
	}
	var rows []dispatchRow
	out := s.mem.excluded()
	err := s.read(ctx, func(ctx context.Context, db *sqlx.DB) error {
		return db.SelectContext(ctx, &rows, "SELECT "+waiterColumns+" FROM dispatches "+where+" ORDER BY id", args...)
	})
	all := make([]Waiter, 0, len(rows))
	for _, r := range rows {
		if d := r.dispatch(); !out[d.ID] {
			all = append(all, WaiterOf(d))
		}
	}
	return all, err
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// Statuses is the status of every row.
func (s *Store) Statuses(ctx context.Context) (map[int64]cortex.Status, error) {
	var rows []struct {
		ID     int64  `db:"id"`
		Status string `db:"status"`
	}
	err := s.read(ctx, func(ctx context.Context, db *sqlx.DB) error {
		return db.SelectContext(ctx, &rows, "SELECT id, status FROM dispatches")
	})
	all := make(map[int64]cortex.Status, len(rows))
	for _, r := range rows {
		all[r.ID] = cortex.Status(r.Status)
	}
	return all, err
}

// Forgotten is what an operator deleted after it had ended: the intake of runs/ leaves it alone.
func (s *Store) Forgotten(ctx context.Context) (map[int64]bool, error) {
	var list []int64
	err := s.read(ctx, func(ctx context.Context, db *sqlx.DB) error {
		return db.SelectContext(ctx, &list, "SELECT dispatch_id FROM forgotten")
	})
	all := make(map[int64]bool, len(list))
	for _, id := range list {
		all[id] = true
	}
	return all, err
}

// LastTurn is when starting was last held back or set free by a hold of scope all; the zero time where it never was.
func (s *Store) LastTurn(ctx context.Context) (time.Time, error) {
	var texts []string
	err := s.read(ctx, func(ctx context.Context, db *sqlx.DB) error {
		return db.SelectContext(ctx, &texts, `SELECT CAST(since AS TEXT) FROM holds WHERE scope = 'all' AND since IS NOT NULL
			UNION ALL SELECT CAST(lifted_at AS TEXT) FROM holds WHERE scope = 'all' AND lifted_at IS NOT NULL`)
	})
	var last time.Time
	for _, text := range texts {
		if at := parseTime(&text); at != nil && at.After(last) {
			last = *at
		}
	}
	return last, err
}

// Start is the last start of a dispatch.
type Start struct {
	At   time.Time
	Lane cortex.Lane
}

// StartsBetween lists when the dispatches were started (claimed, and not given back) whose last start was after from and no later
// than to, oldest first.
func (s *Store) StartsBetween(ctx context.Context, from, to time.Time) ([]Start, error) {
	var rows []dispatchRow
	err := s.read(ctx, func(ctx context.Context, db *sqlx.DB) error {
		return db.SelectContext(ctx, &rows, "SELECT "+startColumns+" FROM dispatches WHERE dispatched_at > ? AND dispatched_at <= ? "+
			"ORDER BY dispatched_at", timeText(from), timeText(to))
	})
	var all []Start
	for _, r := range rows {
		if d := r.dispatch(); d.DispatchedAt != nil {
			all = append(all, Start{*d.DispatchedAt, d.Lane()})
		}
	}
	return all, err
}
