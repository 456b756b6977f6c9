package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// sample is one look at a daemon under load. Memory and files are in KiB.
type sample struct {
	rss, private        float64 // of the daemon
	fds                 float64
	goroutines, threads float64
	tmux                float64 // the server's anonymous memory, which a fork does not make less
	wal, db             float64 // sizes
	ended               int
	host                float64 // ms: a process started and a record synced by the bench itself
}

func (s *soakRun) sample(ctx context.Context) (sample, error) {
	m, err := s.metrics(ctx)
	if err != nil {
		return sample{}, err
	}
	taken := sample{
		rss: m["process_resident_memory_bytes"] / 1024, fds: m["process_open_fds"],
		goroutines: m["go_goroutines"], threads: m["go_threads"],
	}
	own, err := memoryOf(s.cmd.Process.Pid)
	if err != nil {
		return taken, err
	}
	server, err := memoryOf(s.server)
	if err != nil {
		return taken, err
	}
	taken.private, taken.tmux = own.private, server.anonymous
	for name, into := range map[string]*float64{"cortex.db-wal": &taken.wal, "cortex.db": &taken.db} {
		file, err := os.Stat(filepath.Join(s.home, ".cortex", name))
		if err != nil {
			return taken, err
		}
		*into = float64(file.Size()) / 1024
	}
	now, err := s.status(ctx)
	if err != nil {
		return taken, err
	}
	taken.ended = now.ended()
	taken.host, err = s.hostTime(ctx)
	return taken, err
}

// hostTime is what the host takes for the like of a dispatch, without cortex: what it grows by is not cortex's.
func (s *soakRun) hostTime(ctx context.Context) (float64, error) {
	before, err := bootNow()
	if err != nil {
		return 0, err
	}
	if _, err := execTime(ctx, 0, s.bare); err != nil {
		return 0, err
	}
	if err := appendAndSync(ctx, s.home, 1, 1); err != nil {
		return 0, err
	}
	after, err := bootNow()
	return milliseconds(after - before), err
}

// metrics are the daemon's, those that have no labels.
func (d *daemon) metrics(ctx context.Context) (map[string]float64, error) {
	text, err := d.answer(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return nil, err
	}
	all := map[string]float64{}
	for line := range bytes.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(string(line)), " ")
		if !ok || strings.ContainsAny(name, "#{") {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("/metrics: %w", err)
		}
		all[name] = v
	}
	return all, nil
}
