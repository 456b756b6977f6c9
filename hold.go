package cortex

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// HoldKind says what set a hold, and with it which order lifts it.
type HoldKind string

// The kinds of holds. Disk and those below it are computed at the gate and never stored: a row can't be written on a
// full disk or into a locked database.
const (
	HoldOperator HoldKind = "operator"
	HoldTTL      HoldKind = "ttl" // an operator's that ends by itself at Until
	HoldDrain    HoldKind = "drain"
	HoldDisk     HoldKind = "disk"
	HoldDB       HoldKind = "db"
	HoldTmux     HoldKind = "tmux"

	HoldDescriptors HoldKind = "descriptors"
	HoldMemory      HoldKind = "memory"
	HoldLoad        HoldKind = "load"
)

// LiftedByResume reports whether a plain resume lifts holds of this kind (contract: operator, ttl and drain).
func (k HoldKind) LiftedByResume() bool {
	return k == HoldOperator || k == HoldTTL || k == HoldDrain
}

// Computed reports whether holds of this kind are computed at the gate: they are never stored, and lift themselves.
func (k HoldKind) Computed() bool {
	return k == HoldDisk || k == HoldDB || k == HoldTmux || k == HoldDescriptors || k == HoldMemory || k == HoldLoad
}

// ScopeAll is the scope of a pause. Others are one of ScopeKinds and a name: project:NAME.
const ScopeAll = "all"

// ScopeKinds are what of a dispatch a scope may name.
var ScopeKinds = []string{"project", "agent", "provider", "bead", "dispatch"}

// ValidScope reports whether a hold may be set with this scope. A name is taken as it is, and may hold colons.
func ValidScope(scope string) bool {
	kind, name, _ := strings.Cut(scope, ":")
	if kind == "dispatch" {
		id, err := strconv.ParseInt(name, 10, 64)
		return err == nil && id > 0 && name == strconv.FormatInt(id, 10)
	}
	return scope == ScopeAll || slices.Contains(ScopeKinds, kind) && name != ""
}

// Hold is a reason why something may not start. Paused means that at least one hold of scope all is in force.
type Hold struct {
	ID     int64 // 0 for a computed hold, and for one that is so far only in the stop journal
	Kind   HoldKind
	Scope  string
	Reason string
	By     string // who says to have set it
	Own    bool   // set beside the others, to be lifted alone: a pause does not go on with it
	Via    string // http, socket or auto
	Since  time.Time
	Until  *time.Time // nil: until it is lifted

	LiftedAt     *time.Time
	LiftedBy     string
	LiftedReason string
}

// InForce reports whether h holds anything back at now.
func (h Hold) InForce(now time.Time) bool {
	return h.LiftedAt == nil && (h.Until == nil || now.Before(*h.Until))
}

// Covers reports whether h keeps d from starting.
func (h Hold) Covers(d Dispatch) bool {
	if h.Scope == ScopeAll {
		return true
	}
	kind, name, ok := strings.Cut(h.Scope, ":")
	if !ok {
		return false
	}
	switch kind {
	case "project":
		return d.Project == name
	case "agent":
		return d.Agent == name
	case "provider":
		return d.Provider == name
	case "bead":
		return d.BeadID == name
	case "dispatch":
		return strconv.FormatInt(d.ID, 10) == name
	}
	return false
}
