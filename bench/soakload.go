package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"time"
)

// job is one kind of short dispatch, and how it has to end.
type job struct {
	name   string
	script string // of sh; $0 is the file in which each start leaves its line
	code   int    // exit status
	cancel bool   // it never ends by itself, and is cancelled
}

func (j job) status() string {
	switch {
	case j.cancel:
		return "cancelled"
	case j.code == 0:
		return "completed"
	}
	return "failed"
}

const started = `echo $CORTEX_DISPATCH_ID >> "$0"; `

// mix is the load: the n-th dispatch is the n-th of these, again and again.
var mix = func() []job {
	well := job{name: "well", script: started + "exit 0"}
	fails := job{name: "fails", script: started + "exit 3", code: 3}
	talks := job{name: "talks", script: started + "seq 1 500"}
	leaves := job{name: "leaves", script: started + "setsid sleep 1000 > /dev/null 2>&1 < /dev/null & exit 0"}
	obeys := job{name: "obeys", script: started + "exec sleep 1000", cancel: true}
	ignores := job{name: "ignores", script: `trap "" TERM HUP; ` + started + "while :; do sleep 1000; done", cancel: true}
	return []job{
		well, fails, talks, well, leaves, well, obeys, well, talks, well,
		well, fails, well, leaves, fails, well, talks, well, ignores, well,
	}
}()

// load submits without a pause, with at most callers dispatches under way, until it is told to stop.
type load struct {
	daemon  *daemon
	starts  string // a file
	stopped chan struct{}
	stop    func()

	mu       sync.Mutex
	accepted []accepted // guarded by mu
}

// accepted is the n-th dispatch, after its 201.
type accepted struct {
	n  int
	id int64
	ms float64 // its submit took
}

func (a accepted) job() job { return mix[a.n%len(mix)] }

func newLoad(d *daemon, dir string) *load {
	l := &load{daemon: d, starts: filepath.Join(dir, "starts"), stopped: make(chan struct{})}
	l.stop = sync.OnceFunc(func() { close(l.stopped) })
	return l
}

// run returns when the last submit and the last cancel are answered.
func (l *load) run(ctx context.Context) (err error) {
	var cancels sync.WaitGroup
	failed := make(chan error, 1)
	defer func() {
		cancels.Wait()
		select {
		case cancelErr := <-failed:
			err = errors.Join(err, cancelErr)
		default:
		}
	}()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-tick.C:
		case err := <-failed:
			return err
		case <-l.stopped:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		s, err := l.daemon.status(ctx)
		if err != nil {
			continue // it was killed, and the next one is on its way
		}
		free := max(callers-s.Running-s.Pending, 0)
		err = each(ctx, free, free, func(_ context.Context, i int) error {
			a, err := l.submit(ctx, n+i)
			if err == nil && a.job().cancel {
				cancels.Go(func() {
					if err := l.cancel(ctx, a); err != nil {
						select {
						case failed <- err:
						default:
						}
					}
				})
			}
			return err
		})
		if err != nil {
			return err
		}
		n += free
	}
}

// submit submits the n-th dispatch. The key makes it one, however often a killed daemon makes it ask again.
func (l *load) submit(ctx context.Context, n int) (accepted, error) {
	a := accepted{n: n}
	body := map[string]any{
		"bead_id": a.job().name, "project": "soak", "command": []string{"sh", "-c", a.job().script, l.starts},
		"idempotency_key": fmt.Sprint("soak-", n),
	}
	var answer struct {
		ID int64 `json:"id"`
	}
	began := time.Now()
	err := untilAnswered(ctx, func() error { return l.daemon.ask(ctx, http.MethodPost, "/dispatches", body, &answer) })
	if err != nil {
		return a, err
	}
	a.id, a.ms = answer.ID, milliseconds(time.Since(began).Nanoseconds())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted = append(l.accepted, a)
	return a, nil
}

// cancel cancels a dispatch some time after it was accepted: while it waits, starts or runs.
func (l *load) cancel(ctx context.Context, a accepted) error {
	if err := pass(ctx, time.Duration(a.n%7)*20*time.Millisecond); err != nil {
		return err
	}
	path := fmt.Sprintf("/dispatches/%d/cancel", a.id)
	return untilAnswered(ctx, func() error { return l.daemon.order(ctx, path, map[string]any{"grace": "50ms"}) })
}

// untilAnswered asks until there is an answer. A refusal is one.
func untilAnswered(ctx context.Context, ask func() error) error {
	return until(ctx, look, func() (bool, error) {
		err := ask()
		if err != nil && !errors.Is(err, errRefused) {
			return false, nil
		}
		return true, err
	})
}
