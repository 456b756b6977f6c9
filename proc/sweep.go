package proc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// Bounds of a sweep.
const (
	freezeRounds  = 64                    // looks of one freeze: what forks on under another uid can't be stopped, ever
	shortestPause = time.Millisecond      // between looks; doubled each time
	longestPause  = 50 * time.Millisecond //
	refusedFor    = 2 * time.Second       // how long to try where all that are left may not be signalled
	stuckFor      = 10 * time.Second      // how long to try at all
)

// ErrRestless says that a sweep never caught up: each look found processes that were gone, and had forked others, when
// their signal came.
var ErrRestless = errors.New("new processes keep appearing faster than they can be killed")

// Swept is what became of the members of a sweep, each list in the order of their starts.
type Swept struct {
	Killed    []Stat // took SIGKILL and are dead; as they were when last seen alive
	Survivors []Survivor
}

// Survivor is a process that could not be ended.
type Survivor struct {
	Stat
	UID     int    // real user id; -1 where it can't be read
	Command string // see Cmdline; the name in brackets where reading that might hang
	Why     string // the error of the signal, or the state it is in after SIGKILL and what it waits for
}

// Sweep ends all processes that find returns, and all that find returns then, until two looks in a row have found none
// alive; zombies are dead, and left to whoever reaps them. It freezes first (SIGSTOP to all, look again until nobody is new
// and all have stopped), so that nothing forks away from under it and no supervisor replaces its killed child; then it
// kills all, also those that could not be stopped, the youngest first: a stopped child whose parent dies would be continued
// by the kernel (orphaned process groups, setpgid(2)). reap, which may be nil, runs after each kill; it should wait for
// the caller's children without blocking.
//
// find alone decides who is a member: Sweep signals nobody else, and never pid 1, itself, or a pid that has changed hands.
// It should return zombies, too: new ones show that the tree is not yet quiet. Where it asks more of a process than its
// Stat (HasEnv), and that has gone before it answered, it should look again: it may have been a member, and have forked.
// Both functions are called on the caller's goroutine.
//
// The end of ctx cuts the waiting short, never the killing: one round is always done, and nothing is left frozen. The error
// is nil where it was verified that only Survivors are left; else of find, the cause of ctx, or ErrRestless. Sweep returns
// by itself after 2 s where all that are left may not be signalled, and after 10 s in any case.
func Sweep(ctx context.Context, find func() ([]Stat, error), reap func()) (Swept, error) {
	if reap == nil {
		reap = func() {}
	}
	s := sweep{find: find, reap: reap, members: make(map[Ident]*member)}
	err := s.run(ctx)
	swept := s.outcome()
	if err == nil && !s.empty && len(swept.Survivors) == 0 {
		err = ErrRestless
	}
	return swept, err
}

// member is a process that find returned while it was alive.
type member struct {
	Stat         // as last seen
	look   int   // number of the last look that found it
	told   bool  // it took SIGSTOP
	killed bool  // it took SIGKILL
	over   bool  // it is dead, or its pid is free or another's: for ever
	err    error // why it could not be signalled
}

type sweep struct {
	find    func() ([]Stat, error)
	reap    func()
	members map[Ident]*member
	looks   int
	living  []*member // found alive by the last look, the youngest first
	deaths  int       // of members, newly seen by the last look, that were not our doing
	denied  bool      // somebody could not be signalled
	empty   bool      // the last two looks found nobody alive
}

func (s *sweep) run(ctx context.Context) error {
	began := time.Now()
	var refused time.Time // since when nothing but refusals keeps the sweep going
	pause, calm := shortestPause, 0
	for {
		known := len(s.members)
		err := s.freeze(ctx)
		s.kill()
		s.reap()
		if err != nil {
			return fmt.Errorf("look for processes: %w", err)
		}
		if len(s.living) > 0 || s.deaths > 0 {
			calm = 0
		} else if calm++; calm == 2 {
			s.empty = true
			return nil
		}
		dying, denied := s.tally()
		if dying > 0 || calm > 0 {
			refused = time.Time{}
		} else if denied > 0 && refused.IsZero() {
			refused = time.Now()
		}
		if denied > 0 && !refused.IsZero() && time.Since(refused) >= refusedFor {
			return nil
		}
		if calm == 0 && time.Since(began) >= stuckFor {
			return nil
		}
		if calm > 0 || len(s.members) > known {
			pause = shortestPause
		}
		if !wait(ctx, pause) {
			return context.Cause(ctx)
		}
		pause = min(2*pause, longestPause)
	}
}

// freeze stops all members, and looks again until no living one is new or on its way to stop, and none has ended by itself
// (it may have forked before); or until its bounds are reached, or ctx has ended: then those that run are killed running.
func (s *sweep) freeze(ctx context.Context) error {
	for round := 1; ; round++ {
		if err := s.look(); err != nil {
			return err
		}
		fresh, moving := s.stop()
		switch {
		case !fresh && !moving || round == freezeRounds:
			return nil
		case fresh && ctx.Err() == nil:
			// Look at once: what was new may have forked before it stopped.
		case !wait(ctx, shortestPause):
			return nil
		}
	}
}

// look asks find who there is. Members that were stopped or killed stay members, though find may no longer see them (a
// parent's death moves them elsewhere in the tree): they are to be verified dead, and none may be left frozen.
func (s *sweep) look() error {
	found, err := s.find()
	if err != nil {
		return err
	}
	s.looks++
	s.living, s.deaths = s.living[:0], 0
	for _, st := range found {
		s.see(st)
	}
	for id, m := range s.members {
		if m.over || m.look == s.looks || !m.told && !m.killed {
			continue
		}
		switch st, err := statOf(id.PID); {
		case errors.Is(err, ErrGone) || err == nil && st.Ident != id:
			m.over = true
		case err != nil:
			return err
		default:
			s.see(st)
		}
	}
	slices.SortFunc(s.living, youngerFirst)
	return nil
}

// see takes in what a look found of one process. A new zombie is the trace of one that may have been missed alive, and have
// forked another that was missed, too, since a look takes longer than a process can be made to live: it shows that the tree
// is not yet quiet.
func (s *sweep) see(st Stat) {
	if st.PID <= 1 || st.PID == Self().PID {
		return
	}
	m := s.members[st.Ident]
	if m == nil {
		m = &member{}
		s.members[st.Ident] = m
	}
	if m.over || m.look == s.looks { // gone before, so that find shows an old list; or found twice
		return
	}
	m.look = s.looks
	if st.Dead() {
		m.over = true
		if !m.killed {
			s.deaths++
		}
		return
	}
	m.Stat = st
	s.living = append(s.living, m)
}

// stop sends SIGSTOP to the living that have not stopped. Fresh: one took it for the first time, or members ended by
// themselves. Moving: one that took it earlier has yet to stop, or was continued by somebody.
func (s *sweep) stop() (fresh, moving bool) {
	ended := s.deaths > 0
	for _, m := range s.living {
		if m.killed || m.State == 'T' || m.State == 't' {
			continue
		}
		err := m.Signal(syscall.SIGSTOP)
		switch {
		case errors.Is(err, ErrGone):
			m.over = true
			ended = true
		case err != nil:
			m.err = err
			s.denied = true
		case !m.told:
			m.told = true
			fresh = true
		case m.State != 'D' && m.State != 'Z': // in a wait like vfork's it stops later; a zombie's state never shows it
			moving = true
		}
	}
	// Where somebody runs on that can't be stopped, his children come and go for ever: no use in racing them.
	return fresh || ended && !s.denied, moving
}

// kill sends SIGKILL, once, to all that were found by the last look or are frozen.
func (s *sweep) kill() {
	var victims []*member
	for _, m := range s.members {
		if !m.killed && !m.over && (m.told || m.look == s.looks) {
			victims = append(victims, m)
		}
	}
	slices.SortFunc(victims, youngerFirst)
	for _, m := range victims {
		switch err := m.Signal(syscall.SIGKILL); {
		case err == nil:
			m.killed = true
		case errors.Is(err, ErrGone):
			m.over = true
		default:
			m.err = err
			s.denied = true
		}
	}
}

// tally counts, of the living, those that took SIGKILL, and those that may not be signalled.
func (s *sweep) tally() (dying, denied int) {
	for _, m := range s.living {
		switch {
		case m.over:
		case m.killed:
			dying++
		case m.err != nil:
			denied++
		}
	}
	return dying, denied
}

// outcome looks a last time at each member.
func (s *sweep) outcome() Swept {
	var out Swept
	for id, m := range s.members {
		if !m.over {
			st, err := statOf(id.PID)
			m.over = errors.Is(err, ErrGone) || err == nil && (st.Ident != id || st.Dead())
			if err == nil && !m.over {
				m.Stat = st
			}
		}
		switch {
		case m.over && m.killed:
			out.Killed = append(out.Killed, m.Stat)
		case !m.over && (m.killed || m.told || m.look == s.looks):
			out.Survivors = append(out.Survivors, m.survivor())
		}
	}
	slices.SortFunc(out.Killed, older)
	slices.SortFunc(out.Survivors, func(a, b Survivor) int { return older(a.Stat, b.Stat) })
	return out
}

func (m *member) survivor() Survivor {
	v := Survivor{Stat: m.Stat, UID: -1, Command: "[" + m.Comm + "]"}
	if uid, err := UID(m.PID); err == nil {
		v.UID = uid
	}
	if !m.killed { // the memory of one that does not die may be locked for ever, and with it whoever reads there
		v.Command = cmp.Or(Cmdline(m.PID), v.Command)
		if m.err != nil {
			v.Why = m.err.Error()
		}
		return v
	}
	v.Why = fmt.Sprintf("not dead after SIGKILL: state %c", m.State)
	if in := WaitChannel(m.PID); in != "" {
		v.Why += " in " + in
	}
	return v
}

func older(a, b Stat) int {
	return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.PID, b.PID))
}

func youngerFirst(a, b *member) int { return older(b.Stat, a.Stat) }

// wait waits for d; false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
