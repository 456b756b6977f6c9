package sched

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/prometheus/procfs"

	"cortex"
)

// Marks are how loaded the host may be before nothing more starts.
type Marks struct {
	MinMemory int64 // bytes available, as /proc/meminfo counts them; 0: no mark
	MaxLoad   int   // percent of the processors, by the load of the last minute; 0: no mark
}

// memoryHold decides about the hold of memory that runs out, from the one in force (nil: none). A tenth more is needed for it
// to lift, so that it does not flap.
func memoryHold(held *cortex.Hold, available, least int64, now time.Time) *cortex.Hold {
	if least == 0 || available >= least && (held == nil || available >= least+least/10) {
		return nil
	}
	return computedHold(held, cortex.HoldMemory, fmt.Sprintf("%d MiB of memory are available, the mark is %d MiB", available/mib, least/mib), now)
}

// loadHold is the same of the processors. It lifts a tenth below the mark.
func loadHold(held *cortex.Hold, load float64, processors, most int, now time.Time) *cortex.Hold {
	percent := load * 100 / float64(processors)
	if most == 0 || percent <= float64(most) && (held == nil || percent <= float64(most)*0.9) {
		return nil
	}
	return computedHold(held, cortex.HoldLoad, fmt.Sprintf("the load is %.2f on %d processors, the mark is %d %%", load, processors, most), now)
}

// lookAtHost sets and lifts the holds of memory and load.
func (s *Scheduler) lookAtHost(ctx context.Context, now time.Time) {
	marks := s.rulesNow().Marks
	available, load, err := hostPressure(marks)
	if err != nil {
		s.log.Warn("can't see how loaded the host is", "err", err)
		return
	}
	s.mu.Lock()
	memory, busy := s.memory, s.load
	s.memory = memoryHold(memory, available, marks.MinMemory, now)
	s.load = loadHold(busy, load, runtime.NumCPU(), marks.MaxLoad, now)
	memoryNow, busyNow := s.memory, s.load
	s.mu.Unlock()
	s.tellHold(ctx, memory, memoryNow, cortex.EventMemoryLow, cortex.EventMemoryRecovered, "There is memory again")
	s.tellHold(ctx, busy, busyNow, cortex.EventLoadHigh, cortex.EventLoadRecovered, "The load has fallen")
}

// hostPressure reads what marks ask for.
func hostPressure(marks Marks) (available int64, load float64, err error) {
	if marks == (Marks{}) {
		return 0, 0, nil
	}
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, 0, err
	}
	memory, err := fs.Meminfo()
	if err != nil {
		return 0, 0, err
	}
	if memory.MemAvailableBytes == nil {
		return 0, 0, fmt.Errorf("/proc/meminfo does not tell MemAvailable")
	}
	average, err := fs.LoadAvg()
	if err != nil {
		return 0, 0, err
	}
	return int64(*memory.MemAvailableBytes), average.Load1, nil
}

// tellHold records that a computed hold has come or gone.
func (s *Scheduler) tellHold(ctx context.Context, was, is *cortex.Hold, set, lifted cortex.EventType, over string) {
	switch {
	case was == nil && is != nil:
		s.event(ctx, cortex.Event{Type: set, Severity: cortex.Warning, Message: "Nothing starts: " + is.Reason})
	case was != nil && is == nil:
		s.event(ctx, cortex.Event{Type: lifted, Severity: cortex.Info, Message: over + "; starts go on"})
	}
}
