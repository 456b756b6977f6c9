package supervisor

import (
	"time"

	"cortex"
	"cortex/store"
)

// ended is an end that is in runs/ and not yet in the database.
type ended struct {
	store.End
	at time.Time // when nothing was left of it
}

// RecordPatience is how long somebody who looks for an end is kept until the database says it, too: they read it there next.
// Longer than a commit takes, and no time to wait for a database that is locked.
const RecordPatience = time.Second

// Live counts dispatches whose rows may say something else.
type Live struct {
	Frozen     int                   // of those that live
	Running    int                   // those on their way to start included, and those that ended and are within RecordPatience
	Unrecorded int                   // ended in runs/, and not yet in the database
	GivenBack  int                   // pending again, and not yet in the database
	Ended      map[cortex.Status]int // those of Unrecorded that are not in Running
}

// Live never waits.
func (s *Supervisor) Live() Live {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := Live{Running: len(s.live), Unrecorded: len(s.unrecorded), GivenBack: s.givenBack, Ended: map[cortex.Status]int{}}
	for _, f := range s.live {
		if f.frozenSince() != nil {
			l.Frozen++
		}
	}
	for _, end := range s.unrecorded {
		if time.Since(end.at) < RecordPatience {
			l.Running++
		} else {
			l.Ended[end.Status]++
		}
	}
	return l
}

// Lanes are those of what lives, one for each. It never waits.
func (s *Supervisor) Lanes() []cortex.Lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	lanes := make([]cortex.Lane, 0, len(s.live))
	for _, f := range s.live {
		lanes = append(lanes, f.d.Lane())
	}
	return lanes
}

// View is what is known of dispatches at one moment and may not be in the database yet. Take it before the database is read:
// what was in it, and is recorded by then, is in the rows. In the other order an end can be missed in both.
type View struct {
	stages map[int64]cortex.Stage // of what lives
	frozen map[int64]*time.Time   // since when, of what lives and is frozen
	ends   map[int64]store.End    // of what has ended, in runs/
}

// View never waits.
func (s *Supervisor) View() View {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := View{stages: make(map[int64]cortex.Stage, len(s.live)), frozen: map[int64]*time.Time{}, ends: make(map[int64]store.End, len(s.unrecorded))}
	for id, end := range s.unrecorded {
		v.ends[id] = end.End
	}
	for id, f := range s.live {
		v.stages[id] = f.stage()
		if since := f.frozenSince(); since != nil {
			v.frozen[id] = since
		}
	}
	return v
}

// Of is d as it was at that moment, or as its row says where that knows more.
func (v View) Of(d cortex.Dispatch) cortex.Dispatch {
	if end, ok := v.ends[d.ID]; ok && !d.Status.Ended() {
		return end.Apply(d)
	}
	if stage, ok := v.stages[d.ID]; ok && d.Status == cortex.Running {
		d.Stage, d.FrozenSince = stage, v.frozen[d.ID]
	}
	return d
}

// Ended is how the dispatches have ended whose rows may not say so.
func (v View) Ended() map[int64]cortex.Status {
	all := make(map[int64]cortex.Status, len(v.ends))
	for id, end := range v.ends {
		all[id] = end.Status
	}
	return all
}
