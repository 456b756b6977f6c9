package sched

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"cortex"
	"cortex/internal/rlimit"
	"cortex/proc"
)

// startTasks is what a start adds before its agent is forked, the threads of its runner: 8 to 10, measured.
const startTasks = 10

// processesCheck fails while this user has so many processes that the kernel refuses the agent of another start. Root has no
// limit.
func processesCheck() cortex.Check {
	c := cortex.Check{Name: "processes", OK: true, Detail: "no limit"}
	own, agents, err := rlimit.Agents()
	if err == nil && (os.Getuid() == 0 || own.Cur == unix.RLIM_INFINITY) {
		return c
	}
	used := 0
	if err == nil {
		used, err = tasks(os.Getuid())
	}
	if err != nil {
		c.OK, c.Detail, c.Hint = false, err.Error(), "see whether /proc is mounted, and the check descriptors"
		return c
	}
	c.Detail = fmt.Sprintf("%d of %d processes and threads of this user, %d are kept for cortex", used, own.Cur, own.Cur-agents.Cur)
	if uint64(used+startTasks) >= agents.Cur {
		c.OK = false
		c.Hint = fmt.Sprintf("end what there is too much of (ps -u %d -L shows all; cortex cancel ends a dispatch whole), or raise the limit "+
			"(LimitNPROC= of the unit, ulimit -u); starts go on by themselves", os.Getuid())
	}
	return c
}

// tasks counts the processes of a user, and their threads, as RLIMIT_NPROC does.
func tasks(uid int) (int, error) {
	all, err := proc.All()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, p := range all {
		if owner, err := proc.UID(p.PID); err == nil && owner == uid { // one that vanished counts no more
			n += p.Threads
		}
	}
	return n, nil
}
