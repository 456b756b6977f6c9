package main

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver

	"cortex/proc"
)

// row is what is on record of one dispatch.
type row struct {
	id                                      int64
	status                                  string
	code                                    sql.NullInt64
	created, dispatched, completed, updated time.Time
	ends                                    int // events of its end
}

// rows reads the database as anybody may: by SQL, beside the daemon.
func (s *soakRun) rows(ctx context.Context) (all []row, err error) {
	file := url.URL{Scheme: "file", Path: filepath.Join(s.home, ".cortex", "cortex.db"), RawQuery: "mode=ro&_busy_timeout=5000"}
	db, err := sql.Open("sqlite3", file.String())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	list, err := db.QueryContext(ctx, `SELECT id, status, exit_code, created_at, dispatched_at, completed_at, updated_at, ends
		FROM dispatches LEFT JOIN (SELECT dispatch_id, count(*) AS ends FROM events
			WHERE event_type IN ('dispatch_completed', 'dispatch_failed', 'dispatch_cancelled') GROUP BY dispatch_id)
		ON dispatch_id = id ORDER BY id`)
	if err != nil {
		return nil, err
	}
	defer list.Close()
	for list.Next() {
		var r row
		var times [4]sql.NullString
		var ends sql.NullInt64
		if err := list.Scan(&r.id, &r.status, &r.code, &times[0], &times[1], &times[2], &times[3], &ends); err != nil {
			return nil, err
		}
		r.ends = int(ends.Int64)
		for i, into := range []*time.Time{&r.created, &r.dispatched, &r.completed, &r.updated} {
			if !times[i].Valid {
				continue
			}
			if *into, err = time.Parse("2006-01-02 15:04:05.000", times[i].String); err != nil {
				return nil, err
			}
		}
		all = append(all, r)
	}
	return all, list.Err()
}

// verify compares what is on record with what was asked for, and looks for what is left. It returns what is wrong.
func (s *soakRun) verify(ctx context.Context, rows []row) (broken []string, err error) {
	begun, err := s.load.begun()
	if err != nil {
		return nil, err
	}
	slices.SortFunc(s.load.accepted, func(a, b accepted) int { return cmp.Compare(a.id, b.id) })
	byID := map[int64]row{}
	for _, r := range rows {
		byID[r.id] = r
	}
	for _, a := range s.load.accepted {
		r, ok := byID[a.id]
		delete(byID, a.id)
		if wrong := judge(a.job(), r, begun[a.id]); !ok || wrong {
			broken = append(broken, fmt.Sprintf("dispatch %d (%s) is %q with exit status %d, started %d times, with %d events of its end",
				a.id, a.job().name, r.status, r.code.Int64, begun[a.id], r.ends))
		}
		for _, p := range s.pauses {
			// Records are to the millisecond.
			if r.dispatched.After(p.from.Add(time.Millisecond)) && r.dispatched.Before(p.to.Truncate(time.Millisecond)) {
				broken = append(broken, fmt.Sprintf("dispatch %d was started at %v, in the pause from %v to %v", a.id, r.dispatched, p.from, p.to))
			}
		}
	}
	for id := range byID {
		broken = append(broken, fmt.Sprintf("dispatch %d is on record, and nobody knows of it", id))
	}
	left, err := s.left(ctx)
	return append(broken, left...), err
}

// judge reports whether a record is not what its job did.
func judge(j job, r row, begun int) bool {
	if j.cancel {
		return r.status != "cancelled" || r.ends != 1 || begun > 1
	}
	return r.status != j.status() || !r.code.Valid || int(r.code.Int64) != j.code || r.ends != 1 || begun != 1
}

// begun is how often each dispatch was started, by what its own script wrote.
func (l *load) begun() (map[int64]int, error) {
	text, err := os.ReadFile(l.starts)
	if err != nil {
		return nil, err
	}
	times := map[int64]int{}
	for line := range strings.Lines(string(text)) {
		id, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.starts, err)
		}
		times[id]++
	}
	return times, nil
}

// left are the sessions and the processes of dispatches, when all have ended.
func (s *soakRun) left(ctx context.Context) (left []string, err error) {
	names, err := tmux(ctx, s.socket, s.env, "list-sessions", "-F", "#{session_name}")
	if err != nil {
		return nil, err
	}
	for _, name := range strings.Fields(names) {
		if strings.HasPrefix(name, "ctx-") {
			left = append(left, "a session is left: "+name)
		}
	}
	all, err := s.processes()
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
		if err == nil && (bytes.Contains(environ, []byte("CORTEX_RUN_DIR=")) || p.Comm == "cortex-runner") {
			left = append(left, fmt.Sprintf("a process is left: %d %q", p.PID, proc.Cmdline(p.PID)))
		}
	}
	return left, nil
}
