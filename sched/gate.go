package sched

import (
	"fmt"
	"time"

	"cortex"
)

// holds are all holds in force, those of the store and the computed ones.
func (s *Scheduler) holds(now time.Time) []cortex.Hold {
	s.mu.Lock()
	computed := []*cortex.Hold{s.disk, s.descriptors, s.memory, s.load, s.backoff}
	s.mu.Unlock()
	all := s.store.Holds()
	for _, h := range computed {
		if h != nil {
			all = append(all, *h)
		}
	}
	return inForce(all, now)
}

// computedHold is a hold of scope all that cortex sets by itself, in force since the one before it (nil: none) was.
func computedHold(held *cortex.Hold, kind cortex.HoldKind, reason string, now time.Time) *cortex.Hold {
	hold := cortex.Hold{Kind: kind, Scope: cortex.ScopeAll, Reason: reason, By: "cortex", Via: "auto", Since: now}
	if held != nil {
		hold.Since = held.Since
	}
	return &hold
}

// inForce picks the holds that are in force at now.
func inForce(holds []cortex.Hold, now time.Time) []cortex.Hold {
	var left []cortex.Hold
	for _, h := range holds {
		if h.InForce(now) {
			left = append(left, h)
		}
	}
	return left
}

// shut reports whether nothing at all may start: paused means that at least one hold of scope all is in force.
func shut(holds []cortex.Hold) bool {
	for _, h := range holds {
		if h.Scope == cortex.ScopeAll {
			return true
		}
	}
	return false
}

// pause sums up the holds of scope all: since when, by whom and why, and when it ends by itself. It is nil when there is none.
// The operator's word comes before cortex's own reasons.
func pause(holds []cortex.Hold) (first *cortex.Hold, until *time.Time) {
	forever := false
	for i, h := range holds {
		if h.Scope != cortex.ScopeAll {
			continue
		}
		if first == nil || better(h, *first) {
			first = &holds[i]
		}
		switch {
		case h.Until == nil:
			forever = true
		case until == nil || h.Until.After(*until):
			until = h.Until
		}
	}
	if forever {
		until = nil
	}
	return first, until
}

func better(h, than cortex.Hold) bool {
	if a, b := h.Kind.LiftedByResume(), than.Kind.LiftedByResume(); a != b {
		return a
	}
	return h.Since.Before(than.Since)
}

func tmuxLostMessage(pid, live int) string {
	return fmt.Sprintf("The tmux server (pid %d) went away while %d dispatches ran; their runners end and record them", pid, live)
}
