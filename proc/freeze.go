package proc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Frozen are processes that Freeze has stopped, and Thaw continues.
type Frozen struct {
	stopped map[Ident]bool
}

// Freeze stops all processes that find returns, and all that find returns then (SIGSTOP), until two looks in a row have found
// nobody new and every thread stopped. find is as for Sweep. Who was stopped already by somebody else stays out of it: Thaw
// does not continue those. Parents are stopped before their children, so that no shell sees its job stop.
//
// A process in a wait that no signal ends (state D: the parent in a vfork(2), a disk that does not answer) counts as
// stopped: it takes no processor time, and stops when that wait ends.
//
// Where it fails it has continued all again. Errors: of find; of a process that may not be stopped; the cause of ctx, the only
// bound, with a process that still ran where there was one.
func Freeze(ctx context.Context, find func() ([]Stat, error)) (*Frozen, error) {
	s := sweep{find: find, members: make(map[Ident]*member)}
	err := s.stopAll(ctx)
	f := &Frozen{stopped: make(map[Ident]bool)}
	for id, m := range s.members {
		if m.told && !m.over {
			f.stopped[id] = true
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Thaw())
	}
	return f, nil
}

func (s *sweep) stopAll(ctx context.Context) error {
	for pause, calm := shortestPause, 0; calm < 2; {
		if err := s.look(); err != nil {
			return fmt.Errorf("look for processes: %w", err)
		}
		slices.Reverse(s.living)
		fresh, _ := s.stop()
		var runs *member
		for _, m := range s.living {
			switch {
			case m.over:
			case m.err != nil:
				return fmt.Errorf("stop process %d (%s): %w", m.PID, m.Comm, m.err)
			case !stopped(m.PID):
				runs = m
			}
		}
		switch {
		case fresh:
			calm, pause = 0, shortestPause // look at once: what was new may have forked before it stopped
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			continue
		case runs == nil:
			calm++
			continue
		}
		calm = 0
		if !wait(ctx, pause) {
			return fmt.Errorf("process %d (%s) runs on: %w", runs.PID, runs.Comm, context.Cause(ctx))
		}
		pause = min(2*pause, longestPause)
	}
	return nil
}

// stopped reports whether no thread of the process that has pid now runs, or will before it is continued. One that is gone
// does not run; one that can't be looked at may.
func stopped(pid int) bool {
	folder := "/proc/" + strconv.Itoa(pid) + "/task"
	dir, err := unix.Open(folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err == unix.ENOENT || err == unix.ESRCH
	}
	defer unix.Close(dir)
	threads, err := pids(dir, make([]byte, 4<<10), nil)
	if err != nil {
		return err == unix.ENOENT || err == unix.ESRCH
	}
	var buf [statSize]byte
	for _, tid := range threads {
		n, err := slurp(dir, strconv.Itoa(tid)+"/stat", buf[:])
		if errors.Is(err, ErrGone) {
			continue
		}
		s, perr := parseStat(buf[:n])
		if err != nil || perr != nil {
			return false
		}
		switch s.State {
		case 'T', 't', 'D', 'Z', 'X', 'x':
		default:
			return false
		}
	}
	return true
}

// Add takes in what another Freeze has stopped.
func (f *Frozen) Add(more *Frozen) { maps.Copy(f.stopped, more.stopped) }

// Thaw continues what Freeze has stopped (SIGCONT), children before their parents: none of these sees a child that is still
// stopped. That one has ended meanwhile is no error.
func (f *Frozen) Thaw() error {
	order := make([]Ident, 0, len(f.stopped))
	for id := range f.stopped {
		order = append(order, id)
	}
	slices.SortFunc(order, func(a, b Ident) int { return older(Stat{Ident: b}, Stat{Ident: a}) })
	var all error
	for _, id := range order {
		if err := id.Signal(syscall.SIGCONT); err != nil && !errors.Is(err, ErrGone) {
			all = errors.Join(all, fmt.Errorf("continue process %d: %w", id.PID, err))
			continue
		}
		delete(f.stopped, id)
	}
	return all
}
