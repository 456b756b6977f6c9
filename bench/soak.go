package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// A soak is four stretches under the same load. In the middle one daemon lives through ten tenths, of which the first is
// compared with the last: a restart would hide what it piles up. Kills come before and after, and compare a start on an
// almost empty home with one on a full one.
const (
	soakParts = 13 // of the time: one with kills, one in which memory settles, ten tenths, one with kills
	soakKills = 3  // at each end
	pauseMost = time.Second
	// samplesAll is about how many samples the ten tenths have.
	samplesAll   = 600
	sampleOften  = 50 * time.Millisecond
	fewestPoints = 10 // a tenth of less would be none
)

// soak runs a daemon under load for o.soak. It returns an error where something grew that must not, or where what is on
// record is not what happened; then the home is kept.
func soak(ctx context.Context, o options, progress io.Writer) (r soakReport, err error) {
	w, err := newWorld(ctx, o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	d, err := startDaemon(ctx, w)
	if err != nil {
		return r, err
	}
	s := &soakRun{world: w, daemon: d, load: newLoad(d, w.dir), time: o.soak, progress: progress}
	err = s.run(ctx)
	if ctx.Err() != nil {
		return r, errors.Join(errors.New("interrupted"), d.close())
	}
	if err == nil {
		r, err = s.report(ctx)
	}
	w.keep = err != nil || len(r.Broken) > 0
	if w.keep {
		fmt.Fprintln(progress, "the home is kept:", d.home)
	}
	return r, errors.Join(err, d.close())
}

// soakRun is one soak. Its methods are called one after the other; the load goes on beside them.
type soakRun struct {
	*world
	*daemon
	load     *load
	time     time.Duration
	progress io.Writer

	server    int // pid of the tmux server
	samples   []sample
	first     []restart // before the tenths
	last      []restart // after them
	pauses    []span    // in which nothing may have started
	disturbed []span    // in which latencies are the pause's or the kill's
	tenths    span
}

// restart is what the start of a daemon took after a kill -9.
type restart struct{ ms, rss float64 }

// span is a stretch of the wall clock, as the records have it.
type span struct{ from, to time.Time }

func (s *soakRun) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		if err := s.load.run(ctx); err != nil {
			cancel(err)
		}
	}()
	err := s.stretches(ctx, (s.time / soakParts).Round(time.Millisecond))
	if err != nil {
		cancel(err)
	}
	s.load.stop()
	<-loaded
	return context.Cause(ctx) // the first error of both
}

func (s *soakRun) stretches(ctx context.Context, part time.Duration) (err error) {
	if s.first, err = s.kill(ctx, part); err != nil {
		return err
	}
	fmt.Fprintln(s.progress, "soak: settling for", part)
	if err = pass(ctx, part); err != nil {
		return err
	}
	if s.server, err = serverPID(ctx, s.socket, s.env); err != nil {
		return err
	}
	if err = s.observe(ctx, part); err != nil {
		return err
	}
	s.last, err = s.kill(ctx, part)
	return err
}

// kill kills the daemon with SIGKILL again and again during a part.
func (s *soakRun) kill(ctx context.Context, part time.Duration) ([]restart, error) {
	fmt.Fprintf(s.progress, "soak: kill -9, %d times in %v\n", soakKills, part)
	var all []restart
	for range soakKills {
		if err := pass(ctx, part/soakKills); err != nil {
			return nil, err
		}
		from := time.Now()
		ms, err := s.killAndRestart(ctx)
		if err != nil {
			return nil, err
		}
		m, err := s.metrics(ctx)
		if err != nil {
			return nil, err
		}
		s.disturbed = append(s.disturbed, span{from, time.Now()})
		all = append(all, restart{ms, m["process_resident_memory_bytes"] / 1024})
	}
	return all, nil
}

// observe takes the samples of ten tenths, each with a pause in its middle.
func (s *soakRun) observe(ctx context.Context, part time.Duration) error {
	s.tenths.from = time.Now()
	step := max(10*part/samplesAll, sampleOften)
	for tenth := range 10 {
		fmt.Fprintf(s.progress, "soak: tenth %d, %v\n", tenth+1, part)
		if err := s.sampleFor(ctx, part/2, step); err != nil {
			return err
		}
		if err := s.pause(ctx, min(part/50, pauseMost)); err != nil {
			return err
		}
		if err := s.sampleFor(ctx, part/2, step); err != nil {
			return err
		}
	}
	// The last pause has disturbed no more than what was under way. What ends after that is undisturbed, also on a host
	// that has had no time for more.
	if err := s.awaitEnded(ctx, callers+fewestPoints); err != nil {
		return err
	}
	s.tenths.to = time.Now()
	return nil
}

func (s *soakRun) sampleFor(ctx context.Context, d, step time.Duration) error {
	for end := time.Now().Add(d); ; {
		taken, err := s.sample(ctx)
		if err != nil {
			return err
		}
		s.samples = append(s.samples, taken)
		if time.Now().After(end) {
			return nil
		}
		if err := pass(ctx, step); err != nil {
			return err
		}
	}
}

// pause pauses for a moment. From its answer to the resume nothing may start.
func (s *soakRun) pause(ctx context.Context, d time.Duration) error {
	from := time.Now()
	if err := s.order(ctx, "/scheduler/pause", nil); err != nil {
		return err
	}
	paused := time.Now()
	if err := pass(ctx, d); err != nil {
		return err
	}
	s.pauses = append(s.pauses, span{paused, time.Now()})
	if err := s.order(ctx, "/scheduler/resume", nil); err != nil {
		return err
	}
	s.disturbed = append(s.disturbed, span{from, time.Now()})
	return nil
}

// awaitEnded waits until n more dispatches have ended.
func (s *soakRun) awaitEnded(ctx context.Context, n int) error {
	before, err := s.status(ctx)
	if err != nil {
		return err
	}
	return until(ctx, look, func() (bool, error) {
		now, err := s.status(ctx)
		return now.ended() >= before.ended()+n, err
	})
}

// settle waits until all has ended, and all ends are in the database.
func (s *soakRun) settle(ctx context.Context) error {
	return until(ctx, look, func() (bool, error) {
		m, err := s.metrics(ctx)
		return m["cortex_dispatches_running"]+m["cortex_dispatches_pending"]+m["cortex_exits_unwritten"] == 0, err
	})
}

// health returns what is wrong with the daemon's, if that stays.
func (s *soakRun) health(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	var unhealthy error
	err := until(ctx, look, func() (bool, error) {
		unhealthy = s.ask(ctx, http.MethodGet, "/health", nil, nil)
		return unhealthy == nil, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return unhealthy
	}
	return err
}

// pass lets a time pass.
func pass(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
