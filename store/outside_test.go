package store

import (
	"testing"

	"github.com/jmoiron/sqlx"
	"github.com/mattn/go-sqlite3"

	"cortex"
)

// A group that fails has not taken in what others wrote: the next one does.
func TestOutsideRowsSurviveAFailedGroup(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	s, err := Open(Options{Home: home, Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(ctx)
	db, err := sqlx.Open("sqlite3", "file:"+home+"/cortex.db?_busy_timeout=2000")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const insert = "INSERT INTO holds (kind, scope, reason, since) VALUES ('operator', 'all', 'x', '2026-01-01 00:00:00.000')"
	if _, err := db.Exec(insert); err != nil {
		t.Fatal(err)
	}
	tries := 0
	err = s.do(ctx, func(*tx) error {
		if tries++; tries == 1 {
			return sqlite3.Error{Code: sqlite3.ErrFull}
		}
		return nil
	})
	if err != nil || tries < 2 {
		t.Errorf("%v after %d tries", err, tries)
	}
	if err := s.AddEvent(ctx, cortex.Event{Type: "x"}); err != nil {
		t.Error(err)
	}
	if held := s.Holds(); len(held) != 1 || s.ids.highest(holdIDs) != 1 {
		t.Errorf("holds are %+v, the highest id is %d", held, s.ids.highest(holdIDs))
	}
}
