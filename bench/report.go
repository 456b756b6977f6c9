package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
)

// report is what a run has found.
type report struct {
	Host    hostFacts `json:"host"`
	Figures []figure  `json:"figures"`
}

// hostFacts say where and how the figures were made, for whoever compares two reports.
type hostFacts struct {
	CPUs    int    `json:"cpus"`
	Kernel  string `json:"kernel"`
	Tmux    string `json:"tmux"`
	Cortex  string `json:"cortex"`
	State   string `json:"state"` // file system of the private HOME, where everything durable is written
	Starts  int    `json:"starts"`
	Running int    `json:"running"`
}

// figure is one line: what cortex takes, what the least that does the like takes, and how many times the floor's cost is
// cortex's. Above 1 cortex is dearer, whether the unit is a cost or a rate.
type figure struct {
	Name   string  `json:"name"`
	Cortex float64 `json:"cortex"`
	Floor  float64 `json:"floor"`
	Ratio  float64 `json:"ratio"`
	Unit   string  `json:"unit"`
	Budget float64 `json:"budget,omitempty"` // most that the ratio should be; 0: none is set
}

// cost is a figure of which less is better.
func cost(name string, cortex, floor float64, unit string) figure {
	return figure{Name: name, Cortex: cortex, Floor: floor, Ratio: cortex / floor, Unit: unit}
}

// rate is a figure of which more is better, in 1/s.
func rate(name string, cortex, floor float64) figure {
	return figure{Name: name, Cortex: cortex, Floor: floor, Ratio: floor / cortex, Unit: "1/s"}
}

func (f figure) budget() string {
	switch {
	case f.Budget == 0:
		return ""
	case f.Ratio <= f.Budget:
		return fmt.Sprintf("  (budget %g x: holds)", f.Budget)
	}
	return fmt.Sprintf("  (budget %g x: EXCEEDED)", f.Budget)
}

// printable is what a run gives, for machines by its fields and for people as a table.
type printable interface{ table(io.Writer) error }

func show(r printable, machine bool, out io.Writer) error {
	if !machine {
		return r.table(out)
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

func (r report) table(out io.Writer) error {
	h := r.Host
	fmt.Fprintf(out, "%d CPUs, Linux %s, %s, %s, state on %s; %d starts, %d running; ratio: cortex's cost in floors\n",
		h.CPUs, h.Kernel, h.Tmux, h.Cortex, h.State, h.Starts, h.Running)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "cortex\tfloor\tratio\tunit\t  name")
	for _, f := range r.Figures {
		fmt.Fprintf(t, "%s\t%s\t%.2f\t%s\t  %s%s\n", digits(f.Cortex), digits(f.Floor), f.Ratio, f.Unit, f.Name, f.budget())
	}
	return t.Flush()
}

// digits shows three digits that count, and no fraction of a large number: the noise is greater.
func digits(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
