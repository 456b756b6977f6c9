package main

import (
	"cortex/config"
	"cortex/sched"
)

// rulesOf is what cfg says about starts.
func rulesOf(cfg config.Config) sched.Rules {
	return sched.Rules{
		Limits: limitsOf(cfg), Ageing: cfg.Scheduler.Ageing, DiskFloor: cfg.Disk.Floor, PausedWarning: cfg.Scheduler.PausedWarning,
		Marks: sched.Marks{MinMemory: cfg.Scheduler.MinMemory, MaxLoad: cfg.Scheduler.MaxLoad},
	}
}

func limitsOf(cfg config.Config) sched.Limits {
	bounds := func(named map[string]config.Bound) map[string]sched.Bound {
		all := make(map[string]sched.Bound, len(named))
		for name, b := range named {
			all[name] = sched.Bound{Concurrent: b.MaxConcurrent, PerMinute: b.MaxStartsPerMinute}
		}
		return all
	}
	c := cfg.Scheduler
	return sched.Limits{
		Concurrent: c.MaxConcurrentDispatches, PerMinute: c.MaxStartsPerMinute,
		Project: c.MaxPerProject, Agent: c.MaxPerAgent, Provider: c.MaxPerProvider,
		Projects: bounds(cfg.Projects), Agents: bounds(cfg.Agents), Providers: bounds(cfg.Providers),
	}
}
