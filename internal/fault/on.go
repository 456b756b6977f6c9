//go:build faults

package fault

import (
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// $CORTEX_FAULT is a comma-separated list of NAME:ACTION[:N]: at the N-th crossing (default the first) of the point NAME the
// ACTION is taken: kill (SIGKILL to oneself), stop (SIGSTOP to oneself), hang (for ever), fail (Err returns ENOSPC) or
// scarce (Err returns EMFILE). At every crossing: while (hang as long as the file $CORTEX_FAULT_WHILE exists).
var (
	mu      sync.Mutex
	crossed = map[string]int{}
	armed   = parse(os.Getenv("CORTEX_FAULT"))
)

// Arm takes the value of CORTEX_FAULT in env, a list of NAME=value, for a program whose own environment can't carry it.
func Arm[S ~string](env []S) {
	for _, e := range env {
		if list, ok := strings.CutPrefix(string(e), "CORTEX_FAULT="); ok {
			mu.Lock()
			maps.Copy(armed, parse(list))
			mu.Unlock()
		}
	}
}

type fault struct {
	action string
	at     int
}

func parse(list string) map[string]fault {
	faults := map[string]fault{}
	for _, f := range strings.Split(list, ",") {
		parts := strings.Split(f, ":")
		if len(parts) < 2 {
			continue
		}
		at := 1
		if len(parts) == 3 {
			n, err := strconv.Atoi(parts[2])
			if err != nil {
				panic(fmt.Sprintf("CORTEX_FAULT: %q: %v", f, err))
			}
			at = n
		}
		faults[parts[0]] = fault{parts[1], at}
	}
	return faults
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Point takes the action that $CORTEX_FAULT asks for at name.
func Point(name string) { Err(name) }

// Err is Point; it returns an error where the action is fail or scarce.
func Err(name string) error {
	mu.Lock()
	f, ok := armed[name]
	crossed[name]++
	now := crossed[name] == f.at
	mu.Unlock()
	if ok && f.action == "while" {
		for exists(os.Getenv("CORTEX_FAULT_WHILE")) {
			time.Sleep(5 * time.Millisecond)
		}
	}
	if !ok || !now {
		return nil
	}
	switch f.action {
	case "kill":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "hang":
		select {}
	case "stop":
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	case "fail":
		return fmt.Errorf("%s: %w", name, syscall.ENOSPC)
	case "scarce":
		return fmt.Errorf("%s: %w", name, syscall.EMFILE)
	}
	return nil
}
