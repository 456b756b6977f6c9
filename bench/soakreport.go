package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// How many times the first tenth's the last one's may be.
const (
	levelBound   = 1.25 // memory, descriptors, threads: they level out
	recordBound  = 1.1  // what a dispatch leaves on the disk: all are alike
	walBound     = 2    // it is emptied from 2 MiB on, with what then waits
	latencyBound = 2    // of a median, beyond what the host itself is slower
	tailBound    = 4    // of a p99, likewise
)

// soakReport is what a soak has found.
type soakReport struct {
	Host       hostFacts `json:"host"`
	For        string    `json:"for"`
	Dispatches int       `json:"dispatches"`
	Kills      int       `json:"kills"`
	Pauses     int       `json:"pauses"`
	Trends     []trend   `json:"trends"`
	Broken     []string  `json:"broken"` // what should hold and does not
}

// trend is one line: the first tenth, and the last. Where nothing bounds it, Bound is 0.
type trend struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	First float64 `json:"first"`
	Last  float64 `json:"last"`
	Ratio float64 `json:"ratio"`
	Bound float64 `json:"bound,omitempty"`
}

func (t trend) grows() bool { return t.Bound > 0 && t.Ratio > t.Bound }

func (t trend) verdict() string {
	switch {
	case t.Bound == 0:
		return "-"
	case t.grows():
		return "GROWS"
	}
	return "flat"
}

// trendOf compares what quantile part of the first tenth's values is with the last tenth's.
func trendOf(name, unit string, values []float64, part, bound float64) trend {
	first, last := tenths(values)
	return newTrend(name, unit, quantile(first, part), quantile(last, part), bound)
}

func newTrend(name, unit string, first, last, bound float64) trend {
	return trend{Name: name, Unit: unit, First: first, Last: last, Ratio: last / first, Bound: bound}
}

// tenths are the first and the last tenth of all, which has at least one.
func tenths[T any](all []T) (first, last []T) {
	n := max(len(all)/10, 1)
	return all[:n], all[len(all)-n:]
}

func (s *soakRun) report(ctx context.Context) (r soakReport, err error) {
	if err := s.settle(ctx); err != nil {
		return r, err
	}
	rows, err := s.rows(ctx)
	if err != nil {
		return r, err
	}
	r = soakReport{
		Host: s.describe(ctx), For: s.time.String(), Dispatches: len(s.load.accepted),
		Kills: len(s.first) + len(s.last), Pauses: len(s.pauses),
	}
	if r.Broken, err = s.verify(ctx, rows); err != nil {
		return r, err
	}
	if err := s.health(ctx); err != nil {
		r.Broken = append(r.Broken, err.Error())
	}
	r.Trends, err = s.trends(rows)
	return r, err
}

func (s *soakRun) trends(rows []row) ([]trend, error) {
	timed := s.timed(rows)
	if len(timed) == 0 {
		return nil, errors.New("no dispatch was undisturbed: soak for longer")
	}
	first, last := tenths(timed)
	entries, kib, err := s.folders(first)
	if err != nil {
		return nil, err
	}
	lastEntries, lastKiB, err := s.folders(last)
	if err != nil {
		return nil, err
	}
	of := func(value func(sample) float64) []float64 { return column(s.samples, value) }
	hostTimes := of(func(x sample) float64 { return x.host })
	host := trendOf("the host: a bare process and an fsync, p50", "ms", hostTimes, 0.5, 0)
	hostTail := trendOf("the host: a bare process and an fsync, p99", "ms", hostTimes, 0.99, 0)
	lines := []trend{
		trendOf("daemon's resident memory (RSS)", "KiB", of(func(x sample) float64 { return x.rss }), 0.5, levelBound),
		trendOf("daemon's private memory (USS)", "KiB", of(func(x sample) float64 { return x.private }), 0.5, levelBound),
		trendOf("daemon's open descriptors", "", of(func(x sample) float64 { return x.fds }), 0.5, levelBound),
		trendOf("daemon's goroutines", "", of(func(x sample) float64 { return x.goroutines }), 0.5, levelBound),
		trendOf("daemon's threads", "", of(func(x sample) float64 { return x.threads }), 0.5, levelBound),
		trendOf("tmux server's anonymous memory", "KiB", of(func(x sample) float64 { return x.tmux }), 0.5, levelBound),
		trendOf("cortex.db-wal, at most", "KiB", of(func(x sample) float64 { return x.wal }), 1, walBound),
		trendOf("cortex.db a dispatch", "KiB", of(func(x sample) float64 { return x.db / float64(max(x.ended, 1)) }), 0.5, recordBound),
		newTrend("files and folders in runs/ a dispatch", "", entries, lastEntries, recordBound),
		newTrend("room in runs/ a dispatch", "KiB", kib, lastKiB, recordBound),
	}
	for _, l := range []struct {
		name string
		ms   func(timing) float64
	}{
		{"submit, the answer", func(t timing) float64 { return t.submit }},
		{"start, from accepted to dispatched", func(t timing) float64 { return t.start }},
		{"end, from the agent's to the record", func(t timing) float64 { return t.end }},
	} {
		values := column(timed, l.ms)
		lines = append(lines, trendOf(l.name+", p50", "ms", values, 0.5, latencyBound*max(host.Ratio, 1)),
			trendOf(l.name+", p99", "ms", values, 0.99, tailBound*max(hostTail.Ratio, 1)))
	}
	ms := func(r restart) float64 { return r.ms }
	rss := func(r restart) float64 { return r.rss }
	// A start compares every folder of runs/ with its row: it grows with them, as is to be expected.
	return append(lines, host, hostTail,
		newTrend("daemon's start after kill -9", "ms", median(column(s.first, ms)), median(column(s.last, ms)), 0),
		newTrend("daemon's RSS after its start", "KiB", median(column(s.first, rss)), median(column(s.last, rss)), 0)), nil
}

// timing is what one dispatch took, in ms. What comes from records is at least one, which is their step.
type timing struct {
	id                 int64
	submit, start, end float64
}

// timed are the dispatches of the ten tenths that no pause and no kill has disturbed, in the order of their ids.
func (s *soakRun) timed(rows []row) []timing {
	submits := map[int64]float64{}
	for _, a := range s.load.accepted {
		submits[a.id] = a.ms
	}
	var all []timing
	for _, r := range rows {
		if r.dispatched.IsZero() || r.created.Before(s.tenths.from) || r.updated.After(s.tenths.to) || s.isDisturbed(r) {
			continue
		}
		all = append(all, timing{
			id: r.id, submit: submits[r.id],
			start: max(milliseconds(r.dispatched.Sub(r.created).Nanoseconds()), 1),
			end:   max(milliseconds(r.updated.Sub(r.completed).Nanoseconds()), 1),
		})
	}
	return all
}

func (s *soakRun) isDisturbed(r row) bool {
	for _, d := range s.disturbed {
		if r.created.Before(d.to) && r.updated.After(d.from) {
			return true
		}
	}
	return false
}

// folders is what these dispatches have in runs/, one on average: entries, and allocated KiB.
func (s *soakRun) folders(all []timing) (entries, kib float64, err error) {
	for _, t := range all {
		dir := filepath.Join(s.home, ".cortex", "runs", strconv.FormatInt(t.id, 10))
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var st unix.Stat_t
			err = unix.Lstat(path, &st)
			entries++
			kib += float64(st.Blocks) / 2 // of 512 bytes (stat(2))
			return err
		})
		if err != nil {
			return 0, 0, err
		}
	}
	n := float64(len(all))
	return entries / n, kib / n, nil
}

func (r soakReport) table(out io.Writer) error {
	h := r.Host
	fmt.Fprintf(out, "%d CPUs, Linux %s, %s, %s, state on %s; %s: %d dispatches, %d pauses, %d kill -9 of the daemon; the last tenth against the first\n",
		h.CPUs, h.Kernel, h.Tmux, h.Cortex, h.State, r.For, r.Dispatches, r.Pauses, r.Kills)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "first\tlast\tratio\tbound\tunit\t  verdict\t  name")
	for _, l := range r.Trends {
		bound := "-"
		if l.Bound > 0 {
			bound = digits(l.Bound)
		}
		fmt.Fprintf(t, "%s\t%s\t%.2f\t%s\t%s\t  %s\t  %s\n", digits(l.First), digits(l.Last), l.Ratio, bound, l.Unit, l.verdict(), l.Name)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, b := range r.Broken {
		fmt.Fprintln(out, "BROKEN:", b)
	}
	_, err := fmt.Fprintf(out, "accepted %d, of these wrong or left running %d\n", r.Dispatches, len(r.Broken))
	return err
}

// err is not nil where something grows or is broken.
func (r soakReport) err() error {
	grows := 0
	for _, t := range r.Trends {
		if t.grows() {
			grows++
		}
	}
	if grows+len(r.Broken) == 0 {
		return nil
	}
	return fmt.Errorf("%d figures grow, %d invariants are broken", grows, len(r.Broken))
}

func column[T, V any](all []T, value func(T) V) []V {
	values := make([]V, len(all))
	for i, v := range all {
		values[i] = value(v)
	}
	return values
}
