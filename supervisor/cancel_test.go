package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"cortex"
	"cortex/runner"
	"cortex/runner/record"
	"cortex/store"
)

// A soak's cancel was answered with 500, and forgotten: it came between a look at what lives and the moment in which that was
// pending again, so that its order was for an attempt that was over. Such a cancel has to look again.
func TestOrderForWhatWasGivenBack(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	home := t.TempDir()
	st, err := store.Open(store.Options{Home: home, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close(context.Background())
	d, _, err := st.Accept(t.Context(), record.Spec{
		Format: record.Format, Bead: "b", Project: "p", Priority: 2, CreatedAt: time.Now(), Command: []string{"true"}, Stdin: record.StdinPTY,
	})
	if err != nil {
		t.Fatal(err)
	}
	at, err := st.Claim(t.Context(), d.ID, func(cortex.Dispatch) []cortex.Limit { return nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{Store: st, Launcher: &runner.Launcher{Runs: filepath.Join(home, "runs")}, Log: log})
	defer s.Close()
	f := newFollower(s, at.Dispatch, at.Number)
	s.live[d.ID] = f
	f.giveUp(errPaused)
	s.leave(f, nil)
	if err := st.GiveBack(t.Context(), d.ID, at.Number, "a test"); err != nil {
		t.Fatal(err)
	}
	_, err = f.stop(t.Context(), record.Order{By: string(cortex.ByOperator), At: time.Now()})
	if !errors.Is(err, ErrNotLive) {
		t.Errorf("%v", err)
	}
}
