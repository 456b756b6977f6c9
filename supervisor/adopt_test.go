package supervisor

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"cortex"
	"cortex/runner/record"
)

// An order that comes while a dispatch is adopted is obeyed once, and does not hold up the adoption.
func TestOrderWhileAdopted(t *testing.T) {
	t.Parallel()
	runs := t.TempDir()
	for attempt := range 2 {
		dir, err := record.MakeDir(runs, 7, attempt)
		if err == nil && attempt == 1 {
			err = dir.Create(record.ClaimFile, record.Claim{Format: record.Format})
		}
		if err == nil {
			err = dir.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f := newFollower(&Supervisor{runs: runs, ctx: context.Background(), log: slog.New(slog.DiscardHandler)}, cortex.Dispatch{ID: 7}, 1)
	f.order = &record.Order{}
	f.wake()
	adopted := make(chan bool)
	go func() { adopted <- f.adopt() }()
	select {
	case ok := <-adopted:
		if !ok || len(f.poke) != 1 {
			t.Errorf("adopted: %v, %d words of an order", ok, len(f.poke))
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for itself")
	}
}

// What can't be read is not taken for an attempt that is not there.
func TestLatestTellsErrors(t *testing.T) {
	t.Parallel()
	s := &Supervisor{runs: t.TempDir()}
	if n, err := s.latest(7); n != 0 || err != nil {
		t.Errorf("no folder: %d, %v", n, err)
	}
	s.runs += "/\x00"
	if _, err := s.latest(7); err == nil {
		t.Error("an error is taken for no attempt")
	}
}
