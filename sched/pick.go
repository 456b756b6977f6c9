package sched

import (
	"cmp"
	"slices"

	"cortex"
)

// pick chooses what is to be started now: by priority, then age (ids only rise), nothing that a hold covers, at most free. It is
// pure; the claim that follows checks the gate once more, in its own transaction.
func pick(waiting []cortex.Dispatch, holds []cortex.Hold, free int) []int64 {
	waiting = slices.Clone(waiting)
	slices.SortStableFunc(waiting, func(a, b cortex.Dispatch) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.ID, b.ID))
	})
	var ids []int64
	for _, d := range waiting {
		if len(ids) >= free {
			break
		}
		if d.Accepted && !slices.ContainsFunc(holds, func(h cortex.Hold) bool { return h.Covers(d) }) {
			ids = append(ids, d.ID)
		}
	}
	return ids
}
