// Package record is the format of runs/<id>/ and runs/<id>/<attempt>/: the files that outlive both the daemon and the
// runner, and the words that the two say to each other over the runner's socket. It reads and writes them, atomically and
// without following links, and decides nothing.
//
//	runs/<id>/spec.new        the spec, durable but not yet committed to the database
//	runs/<id>/spec.json       Spec: what to run; written once
//	runs/<id>/cancelled.json  Verdict: cancelled while pending, before any attempt
//	runs/<id>/<n>/claim.json  Claim: the attempt is taken, by a runner or (revoked) by the daemon; created exclusively
//	runs/<id>/<n>/started.json  Started: the agent's process is there
//	runs/<id>/<n>/output.log, output.timing  what the agent said, and when (see Log)
//	runs/<id>/<n>/runner.sock the runner's control socket
//	runs/<id>/<n>/ready       a FIFO of the daemon's: the runner says one byte when its socket answers
//	runs/<id>/<n>/stop.json   Order: the daemon's word to stop, on record before its first effect
//	runs/<id>/<n>/freeze.json Freeze: since when the agent is frozen, and how long it was before, by the runner
//	runs/<id>/<n>/exit.json   Exit: how the agent ended, by the runner
//	runs/<id>/<n>/verdict.json  Verdict: how the attempt ended where no runner could write an exit record, by the daemon
package record

import (
	"fmt"
	"time"
)

// Format is the version of every file and of the socket's protocol. A reader accepts its own and older ones.
const Format = 1

// Names of the files.
const (
	SpecNew       = "spec.new"
	SpecFile      = "spec.json"
	CancelledFile = "cancelled.json"
	ClaimFile     = "claim.json"
	StartedFile   = "started.json"
	OutputLog     = "output.log"
	OutputTiming  = "output.timing"
	Socket        = "runner.sock"
	ReadyFIFO     = "ready"
	OrderFile     = "stop.json"
	FreezeFile    = "freeze.json"
	ExitFile      = "exit.json"
	VerdictFile   = "verdict.json"
)

// Process is a process's full identity: a pid alone is reused, and means nothing in another boot or pid namespace.
type Process struct {
	Boot  string `json:"boot"`   // /proc/sys/kernel/random/boot_id
	PIDNS uint64 `json:"pid_ns"` // inode of /proc/self/ns/pid
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // field 22 of /proc/<pid>/stat: clock ticks since boot
}

// Stdin kinds of a Spec.
const (
	StdinPTY  = "pty"  // the terminal
	StdinNull = "null" // /dev/null
)

// Spec is all that is needed to run a dispatch, and to put its row into a database that does not know it.
type Spec struct {
	Format    int       `json:"format"`
	ID        int64     `json:"id"`
	Bead      string    `json:"bead"`
	Project   string    `json:"project"`
	Agent     string    `json:"agent,omitempty"`
	Provider  string    `json:"provider,omitempty"`
	Tier      string    `json:"tier,omitempty"`
	Priority  int       `json:"priority"`
	CreatedAt time.Time `json:"created_at"`

	NotBefore *time.Time `json:"not_before,omitempty"` // it is not started before

	ChangedAt *time.Time `json:"changed_at,omitempty"` // when it was last changed while it waited

	Key     string `json:"idempotency_key,omitempty"`
	Request string `json:"request_hash,omitempty"` // of the request that came with Key

	Command []string `json:"command"`
	Env     []Raw    `json:"env"` // NAME=value, complete but for the CORTEX_* that the runner adds: DISPATCH_ID, BEAD_ID, PROJECT, SESSION, RUN_DIR, ATTEMPT
	Workdir string   `json:"workdir"`
	Stdin   string   `json:"stdin"`

	TimeoutMS int64 `json:"timeout_ms"` // 0: none
	GraceMS   int64 `json:"grace_ms"`   // between the cancel signal and SIGKILL
	OutputMax int64 `json:"output_max"` // bytes of output.log kept, head and tail together
	NoCgroup  bool  `json:"no_cgroup,omitempty"`
	Columns   int   `json:"columns"` // the pty's floor and first size
	Rows      int   `json:"rows"`
}

// Claim says that an attempt is taken. It is created exclusively (link(2) of a complete file), so that an attempt runs at
// most once; the daemon that gives a start back creates it itself, Revoked, so that a runner still on its way loses.
type Claim struct {
	Format  int       `json:"format"`
	Revoked bool      `json:"revoked,omitempty"`
	Reason  string    `json:"reason,omitempty"` // of a revocation
	Runner  Process   `json:"runner"`
	Session string    `json:"session,omitempty"` // name of the tmux session
	Tmux    string    `json:"tmux,omitempty"`    // $TMUX of the pane: socket, server pid, session id
	Cgroup  string    `json:"cgroup,omitempty"`  // folder of the control group that the agent runs in; see CgroupName
	At      time.Time `json:"at"`
}

// CgroupName is the name of an attempt's control group. The runner's pid is in it, since two homes may have the same parent
// group. A record with another name in its path is not followed: the agent may write there.
func CgroupName(id int64, attempt, runner int) string {
	return fmt.Sprintf("ctx-%d-%d.%d", id, attempt, runner)
}

// Started says that the agent's process is there.
type Started struct {
	Format int       `json:"format"`
	Agent  Process   `json:"agent"`
	TTY    string    `json:"tty"`
	At     time.Time `json:"at"`
}

// Freeze says whether the agent's tree is frozen, and for how long it has been. Who needs it while the runner lives has it
// from there; the file is for the time in which that can't be reached.
type Freeze struct {
	Format  int       `json:"format"`
	Changes int       `json:"changes"`            // freezes and thaws so far: of two the one with more is the newer
	Since   time.Time `json:"since,omitzero"`     // zero: it is not frozen
	SinceMS int64     `json:"since_ms,omitempty"` // the same by the host's boot clock, in ms
	TotalMS int64     `json:"total_ms"`           // time spent in the freezes that are over
}

// Frozen reports whether the tree is frozen. It may be called on nil: one that never was.
func (f *Freeze) Frozen() bool { return f != nil && !f.Since.IsZero() }

// Causes of an Exit.
const (
	CauseExit       = "exit"        // by itself, or by somebody's kill
	CauseStop       = "stop"        // after a stop that the daemon asked for
	CauseHangup     = "hangup"      // the session or the tmux server went away
	CauseSpawnError = "spawn_error" // it never started
)

// Exit is how the agent ended. It stays below ExitReserve bytes.
type Exit struct {
	Format  int    `json:"format"`
	ID      int64  `json:"id"`
	Attempt int    `json:"attempt"`
	Cause   string `json:"cause"`
	Code    int    `json:"code"`             // exit status; -1 where a signal ended it or it never started
	Signal  int    `json:"signal,omitempty"` // number of the signal that ended it
	Core    bool   `json:"core,omitempty"`
	Error   string `json:"error,omitempty"` // of a spawn error
	Again   bool   `json:"again,omitempty"` // of a spawn error: the host lacked something, and nothing ran; to be started again

	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at"`
	Seconds   float64   `json:"seconds"` // by the monotonic clock

	Swept     []string `json:"swept,omitempty"` // "pid comm" of what the agent left behind and was killed, the first 20
	SweptMore int      `json:"swept_more,omitempty"`

	OutputBytes int64   `json:"output_bytes"`          // said by the agent
	OutputCut   int64   `json:"output_cut,omitempty"`  // of these not in the log, by its bound
	OutputLost  int64   `json:"output_lost,omitempty"` // of these not in the log, by an error such as ENOSPC
	MaxRSSKiB   int64   `json:"max_rss_kib"`           // of the agent itself and its waited-for children (getrusage)
	CPUSeconds  float64 `json:"cpu_seconds"`
}

// ExitReserve is the room that a runner reserves for its exit record before it starts the agent, in bytes.
const ExitReserve = 8 << 10

// Order is the daemon's word to stop an attempt, durable before its first effect, so that the next daemon finishes it.
type Order struct {
	Format  int       `json:"format"`
	By      string    `json:"by"` // operator or timeout: the column stopped_by
	Reason  string    `json:"reason,omitempty"`
	Actor   string    `json:"actor,omitempty"` // who asked, as told
	GraceMS int64     `json:"grace_ms"`
	At      time.Time `json:"at"`
}

// Kinds of a Verdict.
const (
	VerdictLost       = "lost"        // no exit record, and nobody is left who could write one
	VerdictSpawnError = "spawn_error" // the daemon could not even hand it to a runner
	VerdictCancelled  = "cancelled"   // stopped, verified gone, by the daemon itself or before any attempt
	VerdictTimeout    = "timeout"     // the same for a timeout
)

// Verdict is how an attempt ended where the daemon, not a runner, had to find out.
type Verdict struct {
	Format  int       `json:"format"`
	Kind    string    `json:"kind"`
	Detail  string    `json:"detail,omitempty"`
	Proven  bool      `json:"proven"`            // leftovers were looked for in every way there is
	Seconds *float64  `json:"seconds,omitempty"` // from the agent's start to the verdict, by the boot clock; absent where unknown
	Actor   string    `json:"actor,omitempty"`
	At      time.Time `json:"at"`
}
