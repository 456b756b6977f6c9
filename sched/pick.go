package sched

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/btree"

	"cortex"
	"cortex/store"
)

// pick chooses what is to be started now, at most free: in the order of turns, nothing that a hold covers, and nothing beyond a
// limit. It returns, too, when more may start by time alone: past a limit of starts a minute, or a time that one was not to be
// started before; zero where nothing waits for that. It counts what it chose in use, gives what may be started by now its
// turn, and changes nothing else; the claim that follows checks the gate once more, in its own transaction.
func (q *queue) pick(holds []cortex.Hold, use usage, free int, now time.Time) (ids []int64, next time.Time) {
	next = q.ripen(now)
	if free <= 0 || shut(holds) {
		return nil, next
	}
	// The first of each lane that may start anything, the one whose turn it is on top.
	heads := btree.NewBTreeGOptions(func(a, b *head) bool { return q.before(a.first, b.first) }, btree.Options{NoLocks: true})
	enter := func(h *head) {
		if h.advance() {
			heads.Set(h)
		}
	}
	held := heldScopes(holds)
	ones := holdsOnes(holds)
	for lane, waiting := range q.lanes {
		if laneHeld(lane, held) {
			continue
		}
		enter(&head{limits: use.limits.of(lane), held: held, ones: ones, iter: waiting.Iter()})
	}
	for len(ids) < free {
		h, ok := heads.PopMin()
		if !ok {
			break
		}
		until, open := use.admits(h.limits)
		if !open {
			if !until.IsZero() && (next.IsZero() || until.Before(next)) {
				next = until
			}
			continue // and with it all of its lane: its limits only fill up
		}
		use.add(h.limits, now)
		ids = append(ids, h.first.ID)
		enter(h)
	}
	return ids, next
}

// head is how far a pick has come in a lane.
type head struct {
	limits []cortex.Limit
	held   map[string]bool // scopes
	ones   bool            // some of them are of single beads or dispatches
	iter   btree.IterG[store.Waiter]
	begun  bool
	first  store.Waiter
}

// advance goes to the next one of the lane that is not held by itself or for its bead.
func (h *head) advance() bool {
	for {
		ok := false
		if h.begun {
			ok = h.iter.Next()
		} else {
			ok, h.begun = h.iter.First(), true
		}
		if !ok {
			return false
		}
		if h.first = h.iter.Item(); !h.ones || heldAlone(h.first, h.held) == "" {
			return true
		}
	}
}

// holdsOnes reports whether there is a hold that covers some of a lane and not others.
func holdsOnes(holds []cortex.Hold) bool {
	return slices.ContainsFunc(holds, func(h cortex.Hold) bool {
		return strings.HasPrefix(h.Scope, "bead:") || strings.HasPrefix(h.Scope, "dispatch:")
	})
}

// heldAlone is the scope that holds w and not its lane, empty where none does.
func heldAlone(w store.Waiter, held map[string]bool) string {
	for _, scope := range []string{"bead:" + w.Bead, "dispatch:" + strconv.FormatInt(w.ID, 10)} {
		if held[scope] {
			return scope
		}
	}
	return ""
}

func heldScopes(holds []cortex.Hold) map[string]bool {
	held := make(map[string]bool, len(holds))
	for _, h := range holds {
		held[h.Scope] = true
	}
	return held
}

func laneHeld(lane cortex.Lane, held map[string]bool) bool {
	return held["project:"+lane.Project] || held["agent:"+lane.Agent] || held["provider:"+lane.Provider]
}
