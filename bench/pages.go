package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// settling is how long memory may come to rest, before it is looked at: what a start needed and an idle process does not.
const settling = time.Second

// pages is what a process has in memory, in KiB.
type pages struct {
	pss       float64 // shared pages by the number of processes that share them
	private   float64 // what would be free if it ended: USS; next to nothing between a fork and the child's exec
	anonymous float64 // not of files, shared after a fork or not
}

// growth is what a process has more in private memory after add than before, by the n that were added, in KiB. It is at
// least a page in all: memory is not seen in less.
func growth(ctx context.Context, pid, n int, add func() error) (float64, error) {
	if err := settle(ctx); err != nil {
		return 0, err
	}
	before, err := memoryOf(pid)
	if err != nil {
		return 0, err
	}
	if err := add(); err != nil {
		return 0, err
	}
	if err := settle(ctx); err != nil {
		return 0, err
	}
	after, err := memoryOf(pid)
	return max(after.private-before.private, float64(os.Getpagesize()>>10)) / float64(n), err
}

func settle(ctx context.Context) error { return pass(ctx, settling) }

func medianMemory(pids []int) (pages, error) {
	var pss, private []float64
	for _, pid := range pids {
		m, err := memoryOf(pid)
		if err != nil {
			return pages{}, err
		}
		pss, private = append(pss, m.pss), append(private, m.private)
	}
	return pages{pss: median(pss), private: median(private)}, nil
}

// memoryOf reads what the kernel sums up of a process's mappings (proc(5), smaps_rollup, Linux 4.14).
func memoryOf(pid int) (pages, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return pages{}, err
	}
	defer f.Close()
	var m pages
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 || fields[2] != "kB" {
			continue
		}
		kib, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			return m, fmt.Errorf("%s: %w", f.Name(), err)
		}
		switch fields[0] {
		case "Pss:":
			m.pss = kib
		case "Anonymous:":
			m.anonymous = kib
		case "Private_Clean:", "Private_Dirty:":
			m.private += kib
		}
	}
	return m, lines.Err()
}
