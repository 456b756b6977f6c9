package record

import "time"

// The socket speaks JSON, one value a line, in both directions. The runner sends a State when a connection opens and
// whenever its Phase or what it says about itself changes; it answers each Request with a Reply that has its Seq.

// Operations of a Request.
const (
	OpStatus = "status" // reply with the present State
	OpStop   = "stop"   // signal the group, wait out the grace, sweep the tree; a second one may shorten the grace
	OpSignal = "signal" // signal the agent's process group, nothing else
	OpFreeze = "freeze" // stop the agent's whole tree; answered when it has stopped. Of runners whose State says Freezes
	OpThaw   = "thaw"   // let it go on
)

// Request is what the daemon asks of a runner.
type Request struct {
	Format  int    `json:"format"`
	Seq     int64  `json:"seq"`
	Op      string `json:"op"`
	Signal  int    `json:"signal,omitempty"`   // stop and signal; 0 means SIGTERM
	GraceMS int64  `json:"grace_ms,omitempty"` // of stop; 0: the spec's
}

// NoGrace as the GraceMS of a Request kills at once.
const NoGrace = -1

// Message is what a runner says: the answer to the request with Seq, a State, or both.
type Message struct {
	Format int    `json:"format"`
	Seq    int64  `json:"seq,omitempty"`
	Error  string `json:"error,omitempty"` // why the request was refused
	State  *State `json:"state,omitempty"`
}

// Phases of a runner.
const (
	PhaseStarting = "starting" // the attempt is claimed, the agent not yet started
	PhaseRunning  = "running"
	PhaseStopping = "stopping" // a stop was asked for; the grace runs
	PhaseSweeping = "sweeping" // the agent has ended, or the grace is over: the tree is being killed
	PhaseStuck    = "stuck"    // Survivors can't be killed; tried again every second
	PhaseWriting  = "writing"  // all is over, but the exit record can't be written; tried again every second
	PhaseEnded    = "ended"    // exit.json is durable; the connection closes
)

// State is what a runner knows of itself.
type State struct {
	ID          int64      `json:"id"`
	Attempt     int        `json:"attempt"`
	Phase       string     `json:"phase"`
	Session     string     `json:"session"`
	Runner      Process    `json:"runner"`
	Agent       *Process   `json:"agent,omitempty"`
	TTY         string     `json:"tty,omitempty"`
	StartedAt   time.Time  `json:"started_at,omitzero"`
	OutputBytes int64      `json:"output_bytes"`
	OutputLost  int64      `json:"output_lost,omitempty"`
	Freezes     bool       `json:"freezes,omitempty"` // it takes OpFreeze and OpThaw: the first runners did not
	Freeze      *Freeze    `json:"freeze,omitempty"`  // nil: it never was frozen
	Survivors   []Survivor `json:"survivors,omitempty"`
	Error       string     `json:"error,omitempty"` // why the exit record or the log can't be written
	Exit        *Exit      `json:"exit,omitempty"`  // from PhaseWriting on
}

// Survivor is a process that could not be killed.
type Survivor struct {
	PID     int    `json:"pid"`
	UID     int    `json:"uid"`
	Command string `json:"command"`
	Why     string `json:"why"` // the error of kill(2), or the state D with its wait channel
}
