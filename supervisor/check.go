package supervisor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"cortex"
)

// Check reports dispatches that can't end, and ends that are not in the database yet.
func (s *Supervisor) Check() cortex.Check {
	live := s.Live()
	c := cortex.Check{Name: "dispatches", OK: true, Detail: fmt.Sprintf("%d live", live.Running)}
	followers := s.followers()
	slices.SortFunc(followers, func(a, b *follower) int { return cmp.Compare(a.d.ID, b.d.ID) })
	var troubles []string
	for _, f := range followers {
		f.mu.Lock()
		if f.trouble != "" {
			troubles = append(troubles, fmt.Sprintf("dispatch %d: %s", f.d.ID, f.trouble))
		}
		f.mu.Unlock()
	}
	if len(troubles) > 0 {
		c.OK = false
		c.Detail += "; " + strings.Join(troubles, "; ")
		c.Hint = "see the processes named (ps -o pid,stat,wchan,args -p PID); cortex goes on trying"
	}
	if live.Unrecorded > 0 {
		c.Detail += fmt.Sprintf("; %d ends wait for the database (they are safe in runs/)", live.Unrecorded)
	}
	return c
}
