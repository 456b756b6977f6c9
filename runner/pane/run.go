// Package pane is the program in a tmux pane: it claims one attempt, runs the agent on a pty of its own, writes down what
// it says, answers on a socket, and at the end sweeps whatever the agent left and writes the exit record. It owns the
// attempt's folder from the claim to the exit record, and the agent's process tree.
//
// It never decides whether a dispatch may start or why it is stopped, never opens the database and never calls tmux. It
// logs nothing: it writes records. It uses no os/exec (it reaps with wait4(-1), which would take that package's statuses
// away) and no net: there is one of it beside every agent, so that its memory counts.
//
// A process has one runner. Run must be called on the main goroutine, locked to its thread by an init function of package
// main: the signal that kills the agent when its runner dies follows the thread that forked (prctl(2), PR_SET_PDEATHSIG).
package pane

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"cortex/cgroup"
	"cortex/internal/fault"
	"cortex/proc"
	"cortex/runner/record"
)

// Exit statuses of the program.
const (
	exitDone  = 0 // the exit record is written, however the agent ended
	exitNever = 1 // it could not begin, and nothing was started
	exitUsage = 2
	exitTaken = 3 // the attempt is another runner's, or revoked
)

// Usage is how the program is called.
const Usage = "usage: cortex-runner RUNS ID ATTEMPT SESSION\n       cortex-runner --version"

// Options name the attempt to run.
type Options struct {
	Runs    string // absolute path of runs/
	ID      int64
	Attempt int
	Session string // name of the tmux session that this runs in
}

// Main runs the program with these arguments and returns its exit status.
func Main(args []string, version string, stdout, stderr io.Writer) int {
	if len(args) == 1 && args[0] == "--version" {
		fmt.Fprintln(stdout, "cortex-runner", version)
		return exitDone
	}
	o, err := parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "cortex-runner: %v\n%s\n", err, Usage)
		return exitUsage
	}
	code, err := Run(o)
	if err != nil {
		fmt.Fprintf(stderr, "cortex-runner: dispatch %d, attempt %d: %v\n", o.ID, o.Attempt, err)
	}
	return code
}

func parse(args []string) (Options, error) {
	if len(args) != 4 {
		return Options{}, fmt.Errorf("%d arguments, want 4", len(args))
	}
	o := Options{Runs: args[0], Session: args[3]}
	if !filepath.IsAbs(o.Runs) {
		return o, fmt.Errorf("RUNS %q is not an absolute path", o.Runs)
	}
	var err error
	if o.ID, err = strconv.ParseInt(args[1], 10, 64); err != nil || o.ID < 1 {
		return o, fmt.Errorf("ID %q is not a positive number", args[1])
	}
	if o.Attempt, err = strconv.Atoi(args[2]); err != nil || o.Attempt < 1 {
		return o, fmt.Errorf("ATTEMPT %q is not a positive number", args[2])
	}
	return o, nil
}

// Run runs one attempt from its claim to its exit record, and returns the program's exit status, with the reason where
// nothing was run. Once the attempt is claimed it returns only when its end is on record.
func Run(o Options) (int, error) {
	sigs, err := reset()
	if err != nil {
		return exitNever, err
	}
	r := &runner{opts: o, signals: sigs, done: make(chan func()), swept: make(map[proc.Ident]proc.Stat)}
	if err := r.claim(); errors.Is(err, record.ErrTaken) {
		return exitTaken, err
	} else if err != nil {
		return exitNever, err
	}
	r.begin()
	r.loop()
	return exitDone, r.close()
}

// runner is one attempt. All of it belongs to the goroutine of loop, but for what says otherwise.
type runner struct {
	opts    Options
	spec    record.Spec
	dir     *record.Dir
	claimed record.Claim
	room    *record.Reserved // of the exit record; nil while there is none
	group   *cgroup.Group    // the agent's; nil where none may be made
	signals signals
	control *control // nil while it can't listen
	state   record.State
	done    chan func() // what is to be done in the loop after work done aside

	agent   child
	pty     *terminal // the agent's
	screen  *screen   // the pane
	log     *record.LogWriter
	copying *copier
	began   time.Time // with the monotonic clock

	cause    string
	sent     syscall.Signal   // the last that a stop or a hangup sent
	deadline time.Time        // of the grace
	grace    <-chan time.Time // fires then
	retry    <-chan time.Time // of what failed, every second
	unsaid   *record.Started  // started.json, where it could not be written yet
	freezer  freezer
	swept    map[proc.Ident]proc.Stat
	exit     *record.Exit // set once all is over
	waiting  *os.File     // the daemon's FIFO, until readiness was signalled; opened before the agent could remove it
	ended    bool
}

// claim reads the spec and takes the attempt. Nothing is written where the spec is missing or damaged: without it there
// is nothing that could run.
func (r *runner) claim() error {
	top, err := record.OpenDir(r.opts.Runs, r.opts.ID, 0)
	if err != nil {
		return err
	}
	err = top.Read(record.SpecFile, &r.spec)
	if err := errors.Join(err, top.Close()); err != nil {
		return fmt.Errorf("spec: %w", err)
	}
	if r.spec.ID != r.opts.ID {
		return fmt.Errorf("spec: %w: it is of dispatch %d", record.ErrTorn, r.spec.ID)
	}
	fault.Arm(r.spec.Env)
	dir, err := record.OpenDir(r.opts.Runs, r.opts.ID, r.opts.Attempt)
	if err != nil {
		return err
	}
	r.dir = dir
	fault.Point("pane.claim")
	r.state = record.State{
		ID: r.opts.ID, Attempt: r.opts.Attempt, Session: r.opts.Session,
		Phase: record.PhaseStarting, Runner: identity(proc.Self()), Freezes: true,
	}
	claim := record.Claim{
		Format: record.Format, Runner: r.state.Runner, Session: r.opts.Session, Tmux: os.Getenv("TMUX"), At: time.Now().UTC(),
	}
	if r.makeGroup(); r.group != nil {
		claim.Cgroup = r.group.Path()
	}
	r.claimed = claim
	if err := dir.Create(record.ClaimFile, claim); err != nil {
		return errors.Join(fmt.Errorf("claim: %w", err), r.removeGroup(), dir.Close())
	}
	fault.Point("pane.claimed")
	return nil
}

func identity(id proc.Ident) record.Process {
	return record.Process{Boot: proc.BootID(), PIDNS: proc.PIDNamespace(), PID: id.PID, Start: id.Start}
}

// openReady opens the daemon's FIFO. That nobody waits is no error.
func (r *runner) openReady() {
	f, err := r.dir.Open(record.ReadyFIFO, os.O_WRONLY|nonblock, 0)
	if err != nil {
		return // no FIFO, or no reader: the daemon asks the socket
	}
	if st, err := f.Stat(); err != nil || st.Mode()&fs.ModeNamedPipe == 0 {
		f.Close()
		return
	}
	r.waiting = f
}

// ready tells the daemon, by a byte in its FIFO, that there is something to be learned, once.
func (r *runner) ready() {
	if r.waiting == nil {
		return
	}
	r.waiting.Write([]byte{1}) // one that went away meanwhile asks the socket, too
	r.waiting.Close()
	r.waiting = nil
}
