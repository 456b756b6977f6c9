// Package sched decides what starts and when, and takes the operators' orders: submit, pause, resume, cancel, freeze. Its decisions
// are pure functions (gate.go, queue.go, pick.go, limits.go, disk.go, pressure.go); what they decide is carried out by the supervisor and recorded by the
// store. It starts on events, not on polls.
package sched

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"cortex"
	"cortex/store"
	"cortex/supervisor"
	"cortex/tmux"
)

// Scheduler is the loop that starts what may start.
type Scheduler struct {
	store *store.Store
	sup   *supervisor.Supervisor
	tmux  *tmux.Client
	home  string
	queue *queue // guarded by waiting
	log   *slog.Logger

	waiting sync.Mutex // held while the queue is read anew or looked at
	stale   bool       // the queue is behind, and what it missed is not known; guarded by waiting
	doubted []int64    // to be read anew; guarded by waiting
	began   time.Time
	wake    chan struct{}
	claims  sync.Mutex // held from a claim until the supervisor has it: a pause waits for it
	known   chan struct{}
	adopted chan struct{}

	mu        sync.Mutex
	rules     Rules              // guarded by mu; see SetRules
	lastTick  time.Time          // guarded by mu
	resumedAt time.Time          // guarded by mu
	starts    []time.Time        // guarded by mu; since the last pause or resume, the recent ones
	pausing   int                // guarded by mu; pauses that are being ordered: no claim begins
	giveUp    context.CancelFunc // guarded by mu; ends the claims that still wait for the database
	disk      *cortex.Hold       // guarded by mu; the computed hold of a full disk
	backoff   *cortex.Hold       // guarded by mu; the computed hold after a start failed that was not the dispatch's fault
	failures  int                // guarded by mu; such failures in a row
	held      bool               // guarded by mu; at the last pass an operator's hold of scope all was in force

	descriptors *cortex.Hold // guarded by mu; the computed hold of descriptors that run out
	memory      *cortex.Hold // guarded by mu; the computed hold of memory that runs out
	load        *cortex.Hold // guarded by mu; the computed hold of processors that are too busy

	warned int64 // the hold whose long pause is in the audit trail; the loop's own
}

// Options are what a Scheduler works with.
type Options struct {
	Store      *store.Store
	Supervisor *supervisor.Supervisor
	Tmux       *tmux.Client
	Home       string // its file system is the one that must not run full
	Rules      Rules
	Log        *slog.Logger
}

// New makes a Scheduler. Nothing starts before Run.
func New(o Options) *Scheduler {
	now := time.Now()
	return &Scheduler{
		store: o.Store, sup: o.Supervisor, tmux: o.Tmux, home: o.Home, rules: o.Rules, queue: newQueue(o.Rules.Ageing), log: o.Log,
		began: now, resumedAt: now, lastTick: now,
		wake: make(chan struct{}, 1), known: make(chan struct{}), adopted: make(chan struct{}),
	}
}

// heartbeat is the longest time between two passes: they date last_tick, look at the disk and catch what no event told.
const heartbeat = 5 * time.Second

// Run adopts, then starts what may start until ctx ends. It is called once.
func (s *Scheduler) Run(ctx context.Context) {
	if !s.adopt(ctx) {
		return
	}
	close(s.adopted)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-s.sup.Freed():
		case err := <-s.sup.Failed():
			s.backOff(err, time.Now())
		case server := <-s.tmux.Lost():
			s.tmuxLost(ctx, server)
		case <-s.store.Outside():
			s.reconcile(ctx)
		case <-timer.C:
		}
		timer.Reset(s.pass(ctx, time.Now()))
	}
}

// adopt waits until the database is open and everything in runs/ is taken in. What lives is followed meanwhile.
func (s *Scheduler) adopt(ctx context.Context) bool {
	know := sync.OnceFunc(func() { close(s.known) })
	select {
	case <-s.store.Ready():
	default:
		s.adoptLive()
		know()
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-s.store.Ready():
		}
		err := s.sup.Adopt(ctx)
		if err == nil {
			know()
			s.recall(ctx)
			return true
		}
		s.log.Error("can't adopt; trying again", "err", err)
		s.adoptLive()
		know()
		s.tick(time.Now())
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Second):
		}
	}
}

func (s *Scheduler) adoptLive() {
	if err := s.sup.AdoptLive(); err != nil {
		s.log.Error("can't adopt what lives", "err", err)
	}
}

// Known is closed when all that lives is followed, so that the status counts it; that does not need the database.
func (s *Scheduler) Known() <-chan struct{} { return s.known }

// Adopted is closed when everything in runs/ has been taken in.
func (s *Scheduler) Adopted() <-chan struct{} { return s.adopted }

// recall counts the starts before the daemon's own start, since the last pause or resume, so that recent_dispatch_count
// survives it.
func (s *Scheduler) recall(ctx context.Context) {
	now := time.Now()
	since := now.Add(-recentSpan)
	turned, err := s.store.LastTurn(ctx)
	var before []store.Start
	if err == nil {
		if turned.After(since) {
			since = turned
		}
		before, err = s.store.StartsBetween(ctx, since, now)
	}
	if err != nil {
		s.log.Warn("can't count recent starts", "err", err)
		return
	}
	var starts []time.Time
	for _, b := range before {
		starts = append(starts, b.At)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts = append(starts, s.starts...)
}

// Wake makes the loop look again.
func (s *Scheduler) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// pass starts what may start now, and returns how long it may be until the next pass.
func (s *Scheduler) pass(ctx context.Context, now time.Time) time.Duration {
	s.tick(now)
	s.lookAtDisk(ctx, now)
	s.lookAtHost(ctx, now)
	startable := s.lookAtDescriptors(ctx, now)
	if err := s.store.Expire(ctx, now); err != nil && ctx.Err() == nil {
		s.log.Warn("can't lift a hold whose time is over", "err", err)
	}
	next := heartbeat
	if until, ok := s.nextChange(now); ok {
		next = min(next, max(until, 10*time.Millisecond))
	}
	holds := s.holds(now)
	s.noteTurn(holds, now)
	s.warnPaused(ctx, holds, now)
	limits := s.rulesNow().Limits
	free := limits.Concurrent - s.sup.Live().Running
	if startable < free { // a start that has got its process needs less
		free, next = startable, min(next, time.Second)
	}
	if shut(holds) || free <= 0 {
		return next
	}
	use, err := s.usage(ctx, limits, now)
	if err == nil {
		err = s.sync(ctx)
	}
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("can't read what waits", "err", err)
		}
		return min(next, time.Second)
	}
	s.waiting.Lock()
	ids, open := s.queue.pick(holds, use, free, now)
	s.waiting.Unlock()
	s.claimAll(ctx, ids)
	if !open.IsZero() {
		next = min(next, max(open.Sub(now), 10*time.Millisecond))
	}
	return next
}

// usage is what the limits are compared with now.
func (s *Scheduler) usage(ctx context.Context, limits Limits, now time.Time) (usage, error) {
	var starts []store.Start
	if limits.rated() {
		var err error
		if starts, err = s.store.StartsBetween(ctx, now.Add(-startSpan), now); err != nil {
			return usage{}, err
		}
	}
	return newUsage(limits, s.sup.Lanes(), starts), nil
}

// maxStirred is how many dispatches are looked up one by one; beyond it all that waits is read anew.
const maxStirred = 1000

// sync brings the queue up to what the database says.
func (s *Scheduler) sync(ctx context.Context) error {
	s.waiting.Lock()
	defer s.waiting.Unlock()
	ids, all := s.store.Stirred()
	ids, s.doubted = append(ids, s.doubted...), nil
	if s.stale || all || len(ids) > maxStirred {
		ids = nil
	} else if len(ids) == 0 {
		return nil
	}
	waiting, err := s.store.Startable(ctx, ids)
	if s.stale = err != nil; err != nil {
		return err
	}
	if ids == nil {
		s.queue.replace(waiting)
	} else {
		s.queue.update(ids, waiting)
	}
	return nil
}

// noteTurn sees a pause end by itself: that is a resume as well.
func (s *Scheduler) noteTurn(holds []cortex.Hold, now time.Time) {
	held := operatorsPause(holds)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held && !held {
		s.resumedAt, s.starts = now, nil
	}
	s.held = held
}

func (s *Scheduler) tick(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastTick = now
}

// nextChange is the time until a hold ends by itself.
func (s *Scheduler) nextChange(now time.Time) (time.Duration, bool) {
	until, found := time.Duration(0), false
	for _, h := range s.holds(now) {
		if h.Until != nil && (!found || h.Until.Sub(now) < until) {
			until, found = h.Until.Sub(now), true
		}
	}
	return until, found
}

// reconcile follows up what somebody else wrote into the database.
func (s *Scheduler) reconcile(ctx context.Context) {
	if err := s.sup.Reconcile(ctx); err != nil && ctx.Err() == nil {
		s.log.Error("can't compare the database with what runs", "err", err)
	}
}

func (s *Scheduler) tmuxLost(ctx context.Context, server tmux.Server) {
	live := s.sup.Live().Running
	if live == 0 {
		return // an idle server ends by itself
	}
	s.event(ctx, cortex.Event{
		Type: cortex.EventTmuxLost, Severity: cortex.Critical,
		Message: tmuxLostMessage(server.PID, live),
	})
}

// event writes an event; what can't be written is logged.
func (s *Scheduler) event(ctx context.Context, e cortex.Event) {
	if err := s.store.AddEvent(ctx, e); err != nil && ctx.Err() == nil {
		s.log.Error("can't record an event", "event", e.Type, "message", e.Message, "err", err)
	}
}
