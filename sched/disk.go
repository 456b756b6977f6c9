package sched

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"cortex"
)

const mib = 1 << 20

// Floor is the free room below which nothing starts, for a file system of total bytes: 2 %, at least 1 MiB and at most
// 256 MiB. A tenth more is needed for the hold to lift, so that it does not flap.
func Floor(total int64) int64 { return min(max(total/50, 1*mib), 256*mib) }

// diskHold decides about the hold of a full disk, from the one in force (nil: none).
func diskHold(held *cortex.Hold, free, floor int64, now time.Time) *cortex.Hold {
	if free >= floor && (held == nil || free >= floor+floor/10) {
		return nil
	}
	return computedHold(held, cortex.HoldDisk, fmt.Sprintf("%d MiB free, the floor is %d MiB", free/mib, floor/mib), now)
}

// lookAtDisk sets and lifts the hold of a full disk. It is computed, not stored: a row can't be written on a full disk.
func (s *Scheduler) lookAtDisk(ctx context.Context, now time.Time) {
	free, floor, err := s.room()
	if err != nil {
		s.log.Warn("can't see how full the disk is", "err", err)
		return
	}
	s.mu.Lock()
	was := s.disk
	s.disk = diskHold(was, free, floor, now)
	is := s.disk
	s.mu.Unlock()
	switch {
	case was == nil && is != nil:
		s.event(ctx, cortex.Event{
			Type: cortex.EventDiskLow, Severity: cortex.Err,
			Message: fmt.Sprintf("Nothing starts: the file system of %s is full (%s)", s.home, is.Reason),
		})
	case was != nil && is == nil:
		s.event(ctx, cortex.Event{
			Type: cortex.EventDiskRecovered, Severity: cortex.Info,
			Message: fmt.Sprintf("The file system of %s has room again: %d MiB", s.home, free/mib),
		})
	}
}

// room returns the bytes that are free for this user, and the floor.
func (s *Scheduler) room() (free, floor int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.home, &st); err != nil {
		return 0, 0, fmt.Errorf("statfs %s: %w", s.home, err)
	}
	free = int64(st.Bavail) * st.Bsize
	if floor := s.rulesNow().DiskFloor; floor != 0 {
		return free, floor, nil
	}
	return free, Floor(int64(st.Blocks) * st.Bsize), nil
}

func (s *Scheduler) diskCheck() cortex.Check {
	free, floor, err := s.room()
	c := cortex.Check{Name: "disk", OK: true, Detail: fmt.Sprintf("%d MiB free, the floor is %d MiB", free/mib, floor/mib)}
	switch {
	case err != nil:
		c.OK, c.Detail = false, err.Error()
		c.Hint = "see whether " + s.home + " is still there and readable"
	case free < floor:
		c.OK = false
		c.Hint = "free room on the file system of " + s.home + "; starts go on by themselves"
	}
	return c
}
