package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"syscall"

	"cortex"
	"cortex/runner/record"
)

const maxTail = 1_000_000 // lines

// output answers GET /dispatches/{id}/output: what the agent said in its latest attempt, or in ?attempt=, byte for byte
// or, with ?plain=, as text.
func (s *Server) output(w http.ResponseWriter, r *request) error {
	id, err := r.number("ask")
	if err != nil {
		return err
	}
	tail, err := queryInt(r.query, "tail", 0, maxTail, -1)
	if err != nil {
		return err
	}
	plain, err := queryBool(r.query, "plain")
	if err != nil {
		return err
	}
	d, err := s.get(r.Context(), id)
	if err != nil {
		return err
	}
	attempt, err := queryInt(r.query, "attempt", 1, 1<<30, 0)
	if err != nil {
		return err
	}
	if attempt > d.Attempts {
		return &cortex.Error{Reason: cortex.ReasonNotFound, Message: fmt.Sprintf("Dispatch %d has no attempt %d", id, attempt),
			Hint: fmt.Sprintf("it had %d so far", d.Attempts)}
	}
	log, err := s.openLog(d, attempt, tail)
	if err != nil {
		return err
	}
	defer log.Close() // only read: nothing to lose
	s.sendLog(w, r, log, plain)
	return nil
}

// openLog opens an attempt's log, or its last lines where tail is not negative. Without a number it is the latest attempt
// that has one: a start that was given back said nothing. What has said nothing yet is empty.
func (s *Server) openLog(d cortex.Dispatch, attempt, tail int) (io.ReadCloser, error) {
	first, last := attempt, attempt
	if attempt == 0 {
		first, last = 1, d.Attempts
	}
	replaced := false
	for n := last; n >= first && n > 0 && !replaced; n-- {
		log, err := s.openAttempt(d.ID, n, tail)
		if err == nil {
			return log, nil
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case errors.Is(err, record.ErrTorn), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENOTDIR):
			s.log.Warn("log replaced", "dispatch", d.ID, "attempt", n, "err", err) // an agent may write there
			replaced = true
		default:
			return nil, fmt.Errorf("log of dispatch %d, attempt %d: %w", d.ID, n, err)
		}
	}
	// Whoever had a process had a log. One that never came to that has none, and never had.
	if replaced || d.Status.Ended() && (d.PID != nil || !d.Accepted) {
		return nil, &cortex.Error{Reason: cortex.ReasonOutputGone, Message: fmt.Sprintf("The log of dispatch %d is not there any more", d.ID),
			Hint: "it was removed from " + s.runs}
	}
	return io.NopCloser(bytes.NewReader(nil)), nil
}

func (s *Server) openAttempt(id int64, attempt, tail int) (io.ReadCloser, error) {
	dir, err := record.OpenDir(s.runs, id, attempt)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if tail < 0 {
		return dir.OpenLog()
	}
	lines, err := dir.TailLog(tail)
	return io.NopCloser(bytes.NewReader(lines)), err
}

// sendLog copies a log to the client. It is hostile text: nosniff, so that no browser takes it for HTML.
func (s *Server) sendLog(w http.ResponseWriter, r *request, log io.Reader, plain bool) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return
	}
	if plain {
		log = newPlain(log)
	}
	w.WriteHeader(http.StatusOK)
	buf := make([]byte, 64<<10)
	for {
		n, err := log.Read(buf)
		if n > 0 {
			extendWrite(w)
			if _, werr := w.Write(buf[:n]); werr != nil {
				s.log.Debug("log not sent", "err", werr)
				return
			}
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			s.log.Error("log not read", "path", r.URL.Path, "err", err)
			panic(http.ErrAbortHandler) // cuts the connection: a log that is short must not look complete
		}
	}
}
