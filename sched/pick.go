package sched

import (
	"strings"
	"time"

	"github.com/tidwall/btree"

	"cortex"
	"cortex/store"
)

// pick chooses what is to be started now, at most free: in the order of turns, nothing that a hold covers, and nothing beyond a
// limit. It returns, too, when more may start by time alone: past a limit of starts a minute, or a time that one was not to be
// started before; zero where nothing waits for that. It counts what it chose in use, and changes nothing else; the claim that follows checks the gate once more, in its own
// transaction.
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
	beads, held := heldBeads(holds), heldScopes(holds)
	for lane, waiting := range q.lanes {
		if laneHeld(lane, held) {
			continue
		}
		enter(&head{limits: use.limits.of(lane), beads: beads, iter: waiting.Iter()})
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
	beads  map[string]bool
	iter   btree.IterG[store.Waiter]
	begun  bool
	first  store.Waiter
}

// advance goes to the next one of the lane that is not held for its bead.
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
		if h.first = h.iter.Item(); !h.beads[h.first.Bead] {
			return true
		}
	}
}

func heldBeads(holds []cortex.Hold) map[string]bool {
	beads := map[string]bool{}
	for _, h := range holds {
		if bead, ok := strings.CutPrefix(h.Scope, "bead:"); ok {
			beads[bead] = true
		}
	}
	return beads
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
