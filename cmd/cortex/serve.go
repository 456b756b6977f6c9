package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"cortex"
	"cortex/api"
	"cortex/config"
	"cortex/metrics"
	"cortex/runner"
	"cortex/sched"
	"cortex/store"
	"cortex/supervisor"
	"cortex/tmux"
)

// closeTime is how long a daemon that stops tries to write what is still to be written.
const closeTime = 5 * time.Second

// knowTime bounds how long requests wait for a daemon that starts to find out what lives.
const knowTime = 10 * time.Second

// reloadEnd is how long a daemon that stops waits for its reloader, which hangs where the file system of the configuration does.
const reloadEnd = 2 * time.Second

// serveOptions are the flags of `cortex` alone.
type serveOptions struct {
	configPath string
	dryRun     bool
	stdout     io.Writer
}

// serve runs the daemon until SIGTERM, SIGINT or ctx's end. What runs then runs on, and the next daemon adopts it.
func serve(ctx context.Context, o serveOptions) error {
	from, err := origin(o.configPath)
	if err != nil {
		return err
	}
	mark := from.Mark() // before it is read: what is written meanwhile is a change
	cfg, err := config.Load(from.Flag, from.Environ, from.Cwd)
	if err != nil {
		return err
	}
	if o.dryRun {
		_, err := fmt.Fprintln(o.stdout, "Configuration validation successful")
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP) // to reload; a daemon that was started from a terminal outlives it
	defer signal.Stop(hangups)

	home, err := stateDir()
	if err != nil {
		return err
	}
	if err := makeHome(home); err != nil {
		return err
	}
	held, err := takeLock(home)
	if err != nil {
		return err
	}
	defer held.release()
	d, err := build(cfg, newReloader(from, mark, cfg), home, store.Options{})
	if err != nil {
		return err
	}
	return d.run(ctx, hangups)
}

// daemon is everything that runs in `cortex`, wired together.
type daemon struct {
	cfg     config.Config
	home    string
	log     *slog.Logger
	level   *slog.LevelVar
	reload  *reloader
	store   *store.Store
	tmux    *tmux.Client
	sup     *supervisor.Supervisor
	sched   *sched.Scheduler
	api     *api.Server
	started time.Time
}

// build wires a daemon. It opens the database; nothing is listened on and nothing starts yet. Of the store's options home and
// log are filled in.
func build(cfg config.Config, reload *reloader, home string, opts store.Options) (*daemon, error) {
	d := &daemon{cfg: cfg, home: home, level: new(slog.LevelVar), reload: reload, started: time.Now()}
	d.log = newLogger(cfg.Log, d.level)
	binary, err := runnerBinary(cfg.Runner.Binary)
	if err != nil {
		return nil, err
	}
	token, err := api.LoadToken(home)
	if err != nil {
		return nil, err
	}
	opts.Home, opts.Log = home, d.log.With("component", "store")
	d.store, err = store.Open(opts)
	if err != nil {
		return nil, err
	}
	d.tmux = tmux.NewClient(tmux.Options{
		Binary: cfg.Tmux.Binary, Socket: cfg.Tmux.Socket, Owner: home, Log: d.log.With("component", "tmux"),
	})
	d.sup = supervisor.New(supervisor.Options{
		Store: d.store,
		Launcher: &runner.Launcher{
			Runs: filepath.Join(home, "runs"), Binary: binary, Tmux: d.tmux, Log: d.log.With("component", "runner"),
		},
		Log: d.log.With("component", "supervisor"),
	})
	d.sched = sched.New(sched.Options{
		Store: d.store, Supervisor: d.sup, Tmux: d.tmux, Home: home, Rules: rulesOf(cfg),
		Log: d.log.With("component", "sched"),
	})
	d.api = api.New(api.Options{
		Sched: d.sched, Store: d.store, Config: cfg, Home: home, Token: token, Version: version, Metrics: d.metrics(),
		Log: d.log, Started: d.started, Configuration: reload,
	})
	reload.apply, reload.record, reload.log = d.apply, d.store.AddEvent, d.log.With("component", "config")
	return d, nil
}

// apply puts in force what of cfg may change while the daemon runs: every key that config says counts at a reload. First who
// may, then what may start.
func (d *daemon) apply(cfg config.Config) {
	d.api.SetConfig(cfg)
	setLevel(d.level, cfg.Log.Level)
	d.sched.SetRules(rulesOf(cfg))
}

func setLevel(level *slog.LevelVar, word string) {
	var l slog.Level                                      // info
	if err := l.UnmarshalText([]byte(word)); err == nil { // config.Load has checked it
		level.Set(l)
	}
}

func newLogger(cfg config.Log, level *slog.LevelVar) *slog.Logger {
	setLevel(level, cfg.Level)
	options := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

// runnerBinary finds cortex-runner: where the configuration says, else beside cortex itself.
func runnerBinary(configured string) (string, error) {
	path := configured
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find cortex-runner: %w", err)
		}
		if self, err = filepath.EvalSymlinks(self); err != nil {
			return "", fmt.Errorf("find cortex-runner: %w", err)
		}
		path = filepath.Join(filepath.Dir(self), "cortex-runner")
	}
	found, err := exec.LookPath(path)
	if err != nil {
		return "", fmt.Errorf("no cortex-runner: %w; put it beside cortex (make build, make install) or set runner.binary", err)
	}
	return filepath.Abs(found)
}

func (d *daemon) metrics() http.Handler {
	return metrics.Handler(metrics.Options{
		Snapshot: d.sched.Status, Failures: d.store.Failures, Config: d.reload.state, Version: version, Started: d.started,
		Followers: func() float64 { return float64(d.api.Followers()) }, // made after this handler, and before a scrape
	})
}

// run serves until ctx ends or a part of the daemon can't go on, and then stops every part in turn: first what takes orders,
// last what records.
func (d *daemon) run(ctx context.Context, hangups <-chan os.Signal) error {
	listeners, err := d.listen()
	if err != nil {
		return errors.Join(err, d.closeParts())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() { d.sched.Run(ctx) })
	go d.reload.run(ctx, hangups)
	wg.Go(func() { d.announce(ctx) })
	wg.Go(func() {
		select {
		case err := <-d.store.Fatal():
			cancel(err)
		case <-ctx.Done():
		}
	})
	d.awaitKnown(ctx)
	d.log.Info("cortex serves", "version", version, "home", d.home, "listen", listeners[0].Addr().String(), "config", d.cfg.Path)
	err = d.api.Serve(ctx, listeners...)
	cancel(err)
	wg.Wait()
	select {
	case <-d.reload.ended:
	case <-time.After(reloadEnd):
		d.log.Error("the configuration file hangs, and is left to itself")
	}
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	if rerr := os.Remove(filepath.Join(d.home, "cortex.sock")); rerr != nil {
		d.log.Warn("can't remove the socket", "err", rerr)
	}
	return errors.Join(err, d.closeParts())
}

// awaitKnown waits until all that lives is counted: a status that says 0 in the moment of a restart would be taken for proof.
// Whoever asks meanwhile is answered then. A disk that hangs does not keep the daemon silent for ever.
func (d *daemon) awaitKnown(ctx context.Context) {
	select {
	case <-d.sched.Known():
	case <-time.After(knowTime):
		d.log.Warn("it takes long to find what lives; the counts are too low until then")
	case <-ctx.Done():
	}
}

func (d *daemon) listen() ([]net.Listener, error) {
	tcp, err := listenTCP(d.cfg.API.Listen)
	if err != nil {
		return nil, err
	}
	socket, err := listenSocket(d.home)
	if err != nil {
		tcp.Close()
		return nil, err
	}
	return []net.Listener{tcp, socket}, nil
}

// announce writes the daemon's start into the audit trail, once everything is taken in.
func (d *daemon) announce(ctx context.Context) {
	select {
	case <-d.sched.Adopted():
	case <-ctx.Done():
		return
	}
	live := d.sup.Live().Running
	err := d.store.AddEvent(ctx, cortex.Event{
		Type: cortex.EventDaemonStarted, Severity: cortex.Info,
		Message: fmt.Sprintf("cortex %s started (pid %d); %d running dispatches were taken in", version, os.Getpid(), live),
	})
	if err != nil && ctx.Err() == nil {
		d.log.Error("can't record an event", "err", err)
	}
}

// closeParts stops what follows, records and talks to tmux. Nothing that runs is disturbed.
func (d *daemon) closeParts() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	d.sup.Close()
	err := d.store.AddEvent(ctx, cortex.Event{
		Type: cortex.EventDaemonStopped, Severity: cortex.Info, Message: fmt.Sprintf("cortex %s stopped (pid %d)", version, os.Getpid()),
	})
	if err != nil {
		d.log.Warn("can't record an event", "err", err)
	}
	err = d.store.Close(ctx)
	return errors.Join(err, d.tmux.Close())
}
