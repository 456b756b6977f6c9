package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"cortex"
	"cortex/config"
	"cortex/internal/fault"
)

const (
	// lookEvery is the time between two looks at the configuration file. They are looks and not notices of the kernel (inotify):
	// those tell of a file half written, and nothing of one behind a symbolic link that is swapped, or on another host's disk.
	lookEvery = 500 * time.Millisecond
	// stillFor is how long a file that changed has to be left alone before it is read: whoever writes it has finished then.
	stillFor = 2 * time.Second
	// eventPatience is how long a reload waits for its event to be on record before it is answered. It is in force before.
	eventPatience = time.Second
	// maxMistakes bounds how many of a file's mistakes are in the event and the log; the answer has all.
	maxMistakes = 200
)

// Ways in which a reload is ordered, beside the API's.
const (
	viaSignal = "signal"
	viaFile   = "file"
)

// reloader keeps the configuration of a running daemon: it reads it again on SIGHUP, on an order, and when the file has changed
// and been still since; and hands it to the parts, or leaves all as it is.
type reloader struct {
	origin config.Origin
	apply  func(config.Config)
	record func(context.Context, cortex.Event) error
	log    *slog.Logger

	orders chan order
	ended  chan struct{}  // closed when run has ended
	writes sync.WaitGroup // of events
	last   config.Mark    // of the file as it was last read; run's alone

	mu      sync.Mutex
	inForce config.Config   // guarded by mu
	since   time.Time       // guarded by mu; when that was read
	wrong   config.Problems // guarded by mu; with the file as it was last read
	restart []string        // guarded by mu; keys that count from the next start on
	moving  bool            // guarded by mu; the file has changed since it was last read
}

// order is a reload that somebody waits for.
type order struct {
	by, via string
	done    chan reloaded // holds one
}

type reloaded struct {
	change config.Change
	err    error
}

// newReloader keeps cfg, which was read when the file had that mark.
func newReloader(origin config.Origin, read config.Mark, cfg config.Config) *reloader {
	return &reloader{
		origin: origin, last: read, inForce: cfg, since: time.Now(),
		orders: make(chan order), ended: make(chan struct{}),
	}
}

// run obeys and looks until ctx ends. Only its own goroutine touches the file, so that nobody else hangs where that does.
func (r *reloader) run(ctx context.Context, hangups <-chan os.Signal) {
	defer close(r.ended)
	defer r.writes.Wait()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	still := stillness{seen: r.last}
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			r.reload(ctx, "SIGHUP", viaSignal) // the event and the log have the outcome
		case o := <-r.orders:
			change, err := r.reload(ctx, o.by, o.via)
			o.done <- reloaded{change, err}
		case <-tick.C:
			mark := r.origin.Mark()
			r.setMoving(mark != r.last)
			if still.over(mark, time.Now()) && mark != r.last {
				r.reload(ctx, "cortex", viaFile)
			}
		}
	}
}

// stillness finds out for how long a file has been left alone.
type stillness struct {
	seen  config.Mark
	since time.Time
}

// over reports whether the file has had this mark for stillFor by now. The first look says when that began.
func (s *stillness) over(mark config.Mark, now time.Time) bool {
	if mark != s.seen {
		s.seen, s.since = mark, now
	}
	return now.Sub(s.since) >= stillFor
}

// Reload implements api.Configuration.
func (r *reloader) Reload(ctx context.Context, by, via string) (config.Change, error) {
	o := order{by: by, via: via, done: make(chan reloaded, 1)}
	select {
	case r.orders <- o:
	case <-ctx.Done():
		return config.Change{}, r.late("was not read")
	}
	select {
	case done := <-o.done:
		return done.change, done.err
	case <-ctx.Done():
		return config.Change{}, r.late("is being read, and may still be put in force")
	}
}

// late is the answer of a daemon that stops, or whose file system hangs.
func (r *reloader) late(what string) error {
	return &cortex.Error{Reason: cortex.ReasonStopping, Message: "The configuration " + what,
		Hint: "the daemon is stopping, or the file system of the configuration does not answer (dmesg, df); cortex health tells"}
}

// reload reads the configuration and puts it in force, or nothing of it. Only run calls it.
func (r *reloader) reload(ctx context.Context, by, via string) (config.Change, error) {
	fault.Point("reload.read")
	read, err := r.origin.Read()
	r.last = read.Mark
	if errors.Is(err, config.ErrMoving) { // it has another mark by now, so that it will be read again
		if via == viaFile {
			return config.Change{}, err // it is not still after all
		}
		err = config.Problems{{Source: read.Mark.Path(), What: "was written while it was read; it is read again when it has been still for 2 s"}}
	}
	old := r.current()
	next, change := old, config.Change{}
	if err == nil {
		next, change, err = read.Over(old)
	}
	var wrong config.Problems
	if err != nil && !errors.As(err, &wrong) {
		wrong = config.Problems{{Source: read.Mark.Path(), What: err.Error()}}
	}
	if len(wrong) > 0 {
		r.setRefused(wrong)
		return config.Change{}, r.refuse(ctx, wrong, by, via)
	}
	r.apply(next)
	news := r.setInForce(next, change) || len(change.Changed) > 0 || next.Path != old.Path
	if news || via != viaFile { // somebody touched the file, or wrote a comment
		r.tell(ctx, change, by, via)
	}
	return change, nil
}

func (r *reloader) current() config.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inForce
}

func (r *reloader) setMoving(moving bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moving = moving
}

func (r *reloader) setRefused(wrong config.Problems) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrong, r.restart, r.moving = wrong, nil, false
}

// setInForce reports whether the check says something else from now on.
func (r *reloader) setInForce(c config.Config, change config.Change) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	news := r.wrong != nil || strings.Join(r.restart, " ") != strings.Join(change.RestartRequired, " ")
	r.inForce, r.since, r.wrong, r.restart, r.moving = c, time.Now(), nil, change.RestartRequired, false
	return news
}

// refuse tells of a configuration that is not put in force, and is the error that says so.
func (r *reloader) refuse(ctx context.Context, wrong config.Problems, by, via string) error {
	told := wrong[:min(len(wrong), maxMistakes)]
	for _, p := range told {
		r.log.Warn("configuration refused; what was in force stays", "problem", p.String(), "by", by, "via", via)
	}
	type mistake struct {
		File    string `json:"file"`
		Line    int    `json:"line,omitempty"`
		Key     string `json:"key,omitempty"`
		Message string `json:"message"`
	}
	list := make([]mistake, len(told))
	for i, p := range told {
		list[i] = mistake{p.Source, p.Line, p.Key, p.What}
	}
	r.write(ctx, cortex.Event{
		Type: cortex.EventConfigRefused, Severity: cortex.Warning,
		Message: "Configuration refused, what was in force stays: " + summary(wrong),
	}, map[string]any{"problems": list, "problem_count": len(wrong), "by": by, "via": via})
	return &cortex.Error{Reason: cortex.ReasonConfigRefused, Err: wrong,
		Message: "The configuration is refused, and what was in force stays: " + summary(wrong),
		Hint:    "correct what problems names, each with its place, and reload again"}
}

// summary is the first of several problems, and how many there are beside it.
func summary(wrong config.Problems) string {
	text := wrong[0].String()
	if n := len(wrong) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}

// tell tells of a configuration that is in force.
func (r *reloader) tell(ctx context.Context, change config.Change, by, via string) {
	r.log.Info("configuration reloaded", "config", change.Path, "changed", change.Changed,
		"restart_required", change.RestartRequired, "by", by, "via", via)
	message := "Configuration reloaded: nothing has changed"
	if len(change.Changed) > 0 {
		message = "Configuration reloaded: " + strings.Join(change.Changed, ", ") + " changed"
	}
	if len(change.RestartRequired) > 0 {
		message += "; a restart is needed for " + strings.Join(change.RestartRequired, ", ")
	}
	r.write(ctx, cortex.Event{Type: cortex.EventConfigReloaded, Severity: cortex.Info, Message: message}, map[string]any{
		"config": change.Path, "changed": change.Changed, "restart_required": change.RestartRequired, "by": by, "via": via,
	})
}

// write records an event, also after it returns where the database can't be written now.
func (r *reloader) write(ctx context.Context, e cortex.Event, details map[string]any) {
	text, err := json.Marshal(details)
	if err != nil { // words and numbers always marshal
		r.log.Error("details of an event not encoded", "err", err)
	}
	e.Details = string(text)
	written := make(chan struct{})
	r.writes.Go(func() {
		defer close(written)
		if err := r.record(ctx, e); err != nil && ctx.Err() == nil {
			r.log.Error("can't record an event", "event", e.Type, "message", e.Message, "err", err)
		}
	})
	patience := time.NewTimer(eventPatience)
	defer patience.Stop()
	select {
	case <-written:
	case <-patience.C:
	}
}

// state is for the metrics: whether the file as it was last read is refused, and how many keys need a restart.
func (r *reloader) state() (refused bool, restart int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wrong != nil, len(r.restart)
}

// Check implements api.Configuration. It is a notice: what is in force goes on to be in force whatever stands in the file, and
// whoever restarts a daemon that is unhealthy would end it with just the file that its next start refuses.
func (r *reloader) Check() cortex.Check {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := cortex.Check{Name: "config", Notice: true}
	file := r.inForce.Path
	switch {
	case r.moving:
		c.Detail = "the file has changed since it was read"
		c.Hint = "it is read when it has been still for 2 s; cortex reload reads it at once"
	case r.wrong != nil:
		c.Detail = "what is on disk is refused, and what was in force stays: " + summary(r.wrong)
		c.Hint = "correct it before the next restart, which would fail; cortex reload names every problem"
	case len(r.restart) > 0:
		c.Detail = file + " has other values than those in force: " + strings.Join(r.restart, ", ")
		c.Hint = "restart the daemon for these; what runs, runs on"
	case file == "":
		c.OK, c.Detail = true, "no file: defaults and environment"
	default:
		c.OK, c.Detail = true, file+", read "+r.since.UTC().Format(time.RFC3339)
	}
	return c
}
