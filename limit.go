package cortex

// Limit bounds what runs at a time, and what starts, of the dispatches of a scope.
type Limit struct {
	Scope      string // all, project:NAME, agent:NAME or provider:NAME, as of holds
	Concurrent int    // 0: no bound
	PerMinute  int    // starts within any 60 seconds; 0: no bound
}

// A Lane is what limits and holds tell dispatches apart by, beside their beads.
type Lane struct{ Project, Agent, Provider string }

// Lane is the one that d is in.
func (d Dispatch) Lane() Lane { return Lane{d.Project, d.Agent, d.Provider} }
