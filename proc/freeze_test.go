package proc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"syscall"
	"testing"
)

// freezesFirst makes the runner role freeze its scenario and let it go on, before it sweeps it.
const freezesFirst = "PROC_TEST_FREEZE"

// freezeAndThaw runs in the runner role, whose find misses nobody. It returns what is wrong.
func freezeAndThaw(ctx context.Context, find func() ([]Stat, error), reap func()) (wrong []string) {
	say := func(format string, a ...any) { wrong = append(wrong, fmt.Sprintf(format, a...)) }
	living := func() map[Ident]byte {
		reap()
		all, err := find()
		if err != nil {
			say("%v", err)
		}
		found := map[Ident]byte{}
		for _, s := range all {
			if !s.Dead() {
				found[s.Ident] = s.State
			}
		}
		return found
	}
	before := living()
	for range 2 {
		frozen, err := Freeze(ctx, find)
		if err != nil {
			say("freeze: %v", err)
			for id, state := range living() {
				if state == 'T' {
					say("%d is left stopped", id.PID)
				}
			}
			return wrong
		}
		first := living()
		for id := range first {
			if !stopped(id.PID) {
				say("%d runs in a frozen tree", id.PID)
			}
		}
		for range 5 {
			if now := living(); !maps.Equal(first, now) {
				say("a frozen tree changes: %v, then %v", first, now)
				break
			}
		}
		if err := frozen.Thaw(); err != nil {
			say("thaw: %v", err)
		}
		if !poll(func() bool {
			for id, state := range living() {
				if state == 'T' && before[id] != 'T' {
					return false
				}
			}
			return true
		}) {
			say("not all go on: %v", living())
		}
		for id, state := range before {
			if now, there := living()[id]; state == 'T' && there && now != 'T' {
				say("%d, who was stopped before, goes on", id.PID)
			}
		}
	}
	return wrong
}

// Whatever is below the runner stops, and goes on but for who was stopped before: a crowd, a process without its first thread,
// one that hops to a new process and a new session every 2 ms, and all of them.
func TestFreeze(t *testing.T) {
	t.Parallel()
	for name := range scenarios {
		if strings.HasPrefix(name, "other") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			r := runScenario(t, name, freezesFirst+"=1") // one at a time: each keeps a processor busy
			if len(r.Frozen) > 0 || r.Err != "" || len(r.After) > 0 {
				t.Errorf("%q; %s, %v", r.Frozen, r.Err, r.After)
			}
		})
	}
}

// Where one may not be stopped none is.
func TestFreezeOtherUser(t *testing.T) {
	t.Parallel()
	if syscall.Geteuid() != 0 {
		t.Log("only root can start what it may not signal after a setuid: nothing is tested here")
		return
	}
	r := runScenario(t, "others", freezesFirst+"=1")
	if len(r.Frozen) != 1 || !strings.Contains(r.Frozen[0], "freeze: stop process") {
		t.Errorf("%q", r.Frozen)
	}
}

// What can't be finished leaves nobody stopped.
func TestFreezeFails(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	pid := start(t, dir, "plain").Process.Pid
	running := func() bool {
		s, err := statOf(pid)
		return err == nil && s.State != 'T'
	}
	late := errors.New("too late")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(late)
	if f, err := Freeze(ctx, func() ([]Stat, error) { return withCommand(dir) }); f != nil || !errors.Is(err, late) {
		t.Errorf("%v, %v", f, err)
	}
	eventually(t, "it to run", running)
	looks, broken := 0, errors.New("no list")
	_, err := Freeze(t.Context(), func() ([]Stat, error) {
		if looks++; looks == 2 {
			return nil, broken
		}
		return withCommand(dir)
	})
	if !errors.Is(err, broken) || looks != 2 {
		t.Errorf("%d looks, %v", looks, err)
	}
	eventually(t, "it to run", running)
}
