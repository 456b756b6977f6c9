package config

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// environment is the Source of problems with variables; their Key is the variable's name.
const environment = "environment"

// Problem is one thing that is wrong with the configuration.
type Problem struct {
	Source string // the file as it was named, or "environment"
	Line   int    // from 1; 0 where it is of the whole file or of a variable
	Column int    // from 1, in bytes; only where the text itself is broken
	Key    string // table.key, [table] or variable; empty where it is of the whole file
	What   string // what is wrong and, where known, where it belongs
}

// String prints the problem on one line, such as
//
//	cortex.toml:12: scheduler.max_concurrent_dispatches: must be a whole number from 1 to 10000, not 0
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Source)
	for _, n := range []int{p.Line, p.Column} {
		if n > 0 {
			b.WriteString(":" + strconv.Itoa(n))
		}
	}
	if p.Key != "" {
		b.WriteString(": " + p.Key)
	}
	b.WriteString(": " + p.What)
	return b.String()
}

// Problems is everything that is wrong, as one error; never empty when it is returned.
type Problems []Problem

// Error prints a line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// sort orders them as a person goes through them: the file from top to bottom, then the environment by name.
func (ps Problems) sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(
			boolCompare(a.Source == environment, b.Source == environment),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
		)
	})
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}
