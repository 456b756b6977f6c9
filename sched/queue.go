package sched

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/tidwall/btree"

	"cortex"
	"cortex/store"
)

// queue is what waits for a start, in the order of its turn within each lane. What holds and limits keep back is told by the
// lane, so that a decision looks at the first of each lane and not at all that waits behind it. It is not for several
// goroutines at once.
type queue struct {
	ageing time.Duration // 0: priority alone
	byID   map[int64]store.Waiter
	lanes  map[cortex.Lane]*btree.BTreeG[store.Waiter]
	later  *btree.BTreeG[store.Waiter] // what is not to be started yet, the first to come first
	asOf   time.Time                   // when it was last seen to whose time has come
}

func newQueue(ageing time.Duration) *queue {
	return &queue{
		ageing: ageing, byID: map[int64]store.Waiter{}, lanes: map[cortex.Lane]*btree.BTreeG[store.Waiter]{},
		later: btree.NewBTreeGOptions(sooner, btree.Options{NoLocks: true}),
	}
}

// before reports whether the turn of a comes before that of b: by priority, then age (ids only rise). With ageing, a dispatch
// that has waited that much longer than one of the next better priority comes before it. The difference of two never changes
// while they wait, so that their order doesn't either.
func (q *queue) before(a, b store.Waiter) bool {
	if q.ageing > 0 {
		if c := q.rank(a).Compare(q.rank(b)); c != 0 {
			return c < 0
		}
	}
	return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.ID, b.ID)) < 0
}

// rank is the moment at which w would have been accepted with the first priority to have the same turn.
func (q *queue) rank(w store.Waiter) time.Time {
	return w.Since.Add(time.Duration(w.Priority) * q.ageing)
}

func sooner(a, b store.Waiter) bool {
	return cmp.Or(a.Until.Compare(b.Until), cmp.Compare(a.ID, b.ID)) < 0
}

func (q *queue) put(w store.Waiter) {
	q.drop(w.ID)
	q.byID[w.ID] = w
	if !w.Until.IsZero() {
		q.later.Set(w)
		return
	}
	q.enter(w)
}

// ripen gives all that may be started by now its turn, and returns when the next may; zero where none waits for that.
func (q *queue) ripen(now time.Time) time.Time {
	if now.Before(q.asOf) { // the clock was set back: what had its turn may have to wait again
		q.replace(slices.Collect(maps.Values(q.byID)))
	}
	q.asOf = now
	for {
		w, ok := q.later.Min()
		if !ok || now.Before(w.Until) {
			return w.Until
		}
		q.later.PopMin()
		q.enter(w)
	}
}

func (q *queue) enter(w store.Waiter) {
	lane := q.lanes[w.Lane]
	if lane == nil {
		lane = btree.NewBTreeGOptions(q.before, btree.Options{NoLocks: true})
		q.lanes[w.Lane] = lane
	}
	lane.Set(w)
}

func (q *queue) drop(id int64) {
	w, ok := q.byID[id]
	if !ok {
		return
	}
	delete(q.byID, id)
	q.later.Delete(w)
	lane := q.lanes[w.Lane]
	if lane == nil {
		return
	}
	if lane.Delete(w); lane.Len() == 0 {
		delete(q.lanes, w.Lane)
	}
}

// age has another ageing from now on.
func (q *queue) age(ageing time.Duration) {
	if q.ageing == ageing {
		return
	}
	q.ageing = ageing
	q.replace(slices.Collect(maps.Values(q.byID)))
}

// replace makes the queue anew of what waits now.
func (q *queue) replace(waiting []store.Waiter) {
	*q = *newQueue(q.ageing)
	for _, w := range waiting {
		q.put(w)
	}
}

// update takes in what waits now of the dispatches ids; the others of these are gone from the queue.
func (q *queue) update(ids []int64, waiting []store.Waiter) {
	for _, id := range ids {
		q.drop(id)
	}
	for _, w := range waiting {
		q.put(w)
	}
}
