// Package supervisor looks after what runs: one goroutine a dispatch starts it, follows it, stops it when told to or when
// its time is up, and records how it ended once nothing of it is left. It adopts what an earlier daemon started. It does not
// decide what starts.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cortex"
	"cortex/internal/rlimit"
	"cortex/runner"
	"cortex/store"
	"cortex/tmux"
)

// Supervisor owns the dispatches that live.
type Supervisor struct {
	store    *store.Store
	launcher *runner.Launcher
	tmux     *tmux.Client
	runs     string
	log      *slog.Logger

	ctx    context.Context // ends when the daemon stops; the runners live on
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	freed  chan struct{}
	failed chan error

	mu         sync.Mutex
	connecting int                 // guarded by mu; connections to runners that are being made
	live       map[int64]*follower // guarded by mu; what lives, and what is on its way to start
	unrecorded map[int64]ended     // guarded by mu; ended, not yet in the database
	givenBack  int                 // guarded by mu; pending again, not yet in the database
}

// Options are what a Supervisor works with.
type Options struct {
	Store    *store.Store
	Launcher *runner.Launcher
	Log      *slog.Logger
}

// New makes a Supervisor that follows nothing yet.
func New(o Options) *Supervisor {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Supervisor{
		store: o.Store, launcher: o.Launcher, tmux: o.Launcher.Tmux, runs: o.Launcher.Runs, log: o.Log,
		ctx: ctx, cancel: cancel,
		freed: make(chan struct{}, 1), failed: make(chan error, 1),
		live: map[int64]*follower{}, unrecorded: map[int64]ended{},
	}
}

// errStopped is why everything here ends when the daemon does.
var errStopped = &cortex.Error{Reason: cortex.ReasonStopping, Message: "the daemon is stopping", Hint: "ask again when it runs"}

// Close stops following, and waits until nobody follows any more. What runs, runs on: the next daemon adopts it.
func (s *Supervisor) Close() {
	s.cancel(errStopped)
	s.wg.Wait()
}

// wait waits, and reports false when the daemon stops meanwhile.
func (s *Supervisor) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// Freed tells that a slot may be free. It carries at most one word for any number of ends.
func (s *Supervisor) Freed() <-chan struct{} { return s.freed }

// Failed tells that a start failed for a reason that is not the dispatch's own, such as a tmux that can't be run; the
// dispatch was given back. It carries the newest reason only.
func (s *Supervisor) Failed() <-chan error { return s.failed }

// Start starts a claimed attempt. It returns at once.
func (s *Supervisor) Start(at cortex.Attempt) {
	s.follow(newFollower(s, at.Dispatch, at.Number), (*follower).start)
}

// GiveBack puts a claimed attempt that is not to be started any more back to pending. It returns at once.
func (s *Supervisor) GiveBack(at cortex.Attempt) {
	s.follow(newFollower(s, at.Dispatch, at.Number), (*follower).unclaim)
}

// follow makes f the one goroutine of its dispatch; it reports false where there is one already.
func (s *Supervisor) follow(f *follower, begin func(*follower) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.live[f.d.ID]; ok || s.ctx.Err() != nil {
		return false
	}
	s.live[f.d.ID] = f
	s.store.SetLive(len(s.live))
	s.wg.Go(func() { f.run(begin) })
	return true
}

// leave takes f out of what lives, before its end is written, or without one that it is given back: what lives never waits for
// the database.
func (s *Supervisor) leave(f *follower, end *store.End) {
	s.mu.Lock()
	delete(s.live, f.d.ID)
	if end != nil {
		s.unrecorded[f.d.ID] = ended{*end, time.Now()}
	} else {
		s.givenBack++
	}
	n := len(s.live)
	s.mu.Unlock()
	s.store.SetLive(n)
	close(f.gone)
	s.tellFreed()
}

// recorded says that an end is in the database.
func (s *Supervisor) recorded(id int64) {
	s.mu.Lock()
	delete(s.unrecorded, id)
	s.mu.Unlock()
	s.tellFreed()
}

// gaveBack says that a dispatch is pending in the database, too.
func (s *Supervisor) gaveBack() {
	s.mu.Lock()
	s.givenBack--
	s.mu.Unlock()
	s.tellFreed()
}

// errDescriptors says that another connection would leave too few descriptors. It is a case of EMFILE.
var errDescriptors = fmt.Errorf("%w (those that are left are kept for what else the daemon has to do)", unix.EMFILE)

// connectReserve is the part of the reserve that starts leave to connections: a runner that was started is to be followed.
const connectReserve = 2

// mayConnect reports whether there is a descriptor for a connection that stays open. After nil connected is to be called.
func (s *Supervisor) mayConnect() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	used, limit, err := rlimit.Descriptors()
	if err != nil {
		return err
	}
	if used+s.connecting >= limit-rlimit.DescriptorReserve(limit)/connectReserve {
		return errDescriptors
	}
	s.connecting++
	return nil
}

func (s *Supervisor) connected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connecting--
}

func (s *Supervisor) tellFreed() {
	select {
	case s.freed <- struct{}{}:
	default:
	}
}

func (s *Supervisor) tellFailed(err error) {
	select {
	case <-s.failed:
	default:
	}
	select {
	case s.failed <- err:
	default:
	}
}

// Starting is the number of dispatches that live and have no process yet.
func (s *Supervisor) Starting() int {
	n := 0
	for _, f := range s.followers() {
		select {
		case <-f.settled:
		default:
			n++
		}
	}
	return n
}

// Gone returns a channel that is closed when nothing of the dispatch is left; nil where it does not live.
func (s *Supervisor) Gone(id int64) <-chan struct{} {
	if f := s.follower(id); f != nil {
		return f.gone
	}
	return nil
}

func (s *Supervisor) follower(id int64) *follower {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[id]
}

func (s *Supervisor) followers() []*follower {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*follower, 0, len(s.live))
	for _, f := range s.live {
		all = append(all, f)
	}
	return all
}

// settlePatience is how long a pause lets a start that is on its way come through before it takes it back.
const settlePatience = 500 * time.Millisecond

// Settle returns when every start that was under way, of what is covered, has either got its process or been given back. The
// caller has seen to it that no new one begins. A start that has not come through after settlePatience is revoked; a runner that has claimed
// its attempt and is then silent is killed, so that Settle does not wait for ever.
func (s *Supervisor) Settle(covered func(cortex.Dispatch) bool) {
	patience := time.After(settlePatience)
	for _, f := range s.followers() {
		if !covered(f.d) {
			continue
		}
		select {
		case <-f.settled:
			continue
		case <-patience:
			patience = closed
		}
		f.giveUp(errPaused)
		<-f.settled
	}
}

// closed is a channel that is always ready.
var closed = func() <-chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}()

// write runs a write to the database that nobody waits for, beside the follower: a locked database must not keep it from
// obeying. The store holds it until the database opens; a daemon that ends meanwhile leaves it to the next one's adoption.
func (s *Supervisor) write(what string, id int64, fn func(context.Context) error) {
	s.wg.Go(func() {
		err := fn(s.ctx)
		switch {
		case err == nil || s.ctx.Err() != nil:
		case errors.Is(err, store.ErrNotRunning): // it has ended meanwhile, or its row was by hand
			s.log.Debug("nothing to record any more", "what", what, "dispatch", id)
		default:
			s.log.Error("can't record", "what", what, "dispatch", id, "err", err)
		}
	})
}
