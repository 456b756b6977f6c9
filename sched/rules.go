package sched

import "time"

// Rules are what an operator sets, and may change while the scheduler runs.
type Rules struct {
	Limits        Limits
	Marks         Marks
	Ageing        time.Duration // how much longer in the queue makes up for a step of priority; 0: nothing does
	DiskFloor     int64         // bytes; 0: Floor of the file system's size
	PausedWarning time.Duration // a pause that lasts longer is told; 0: none is
}

func (s *Scheduler) rulesNow() Rules {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rules
}

// SetRules changes them at once: with a higher limit more starts, with a lower one nothing until enough has ended; what runs is
// left alone. When it returns no start can begin any more under the rules before. Where claims are under way for a locked
// database that takes up to claimPatience.
func (s *Scheduler) SetRules(rules Rules) {
	s.mu.Lock()
	s.rules = rules
	s.mu.Unlock()
	s.waiting.Lock()
	s.queue.age(rules.Ageing)
	s.waiting.Unlock()
	s.claims.Lock() // each claim has its rules from its beginning
	//lint:ignore SA2001 there is nothing to do while they are out
	s.claims.Unlock()
	s.Wake()
}
