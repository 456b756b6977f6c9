package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cortex"
	"cortex/store"
)

// eventStream is the content type of server-sent events (html.spec.whatwg.org, 9.2). No line of a piece holds a line's end:
// encoded JSON has none.
const eventStream = "text/event-stream"

const (
	followBatch = 100              // events read at once: what a follower holds in memory
	heartbeat   = 15 * time.Second // between two signs of life
	againTime   = time.Second      // until the events are read again, where they can't be
	comeBack    = time.Second      // after it a browser whose connection was cut comes back
)

// maxFollowers is how many followers there may be: half of a listener's connections, so that they never keep out an operator.
func maxFollowers() int { return maxConnections() / 2 }

// Followers is how many follow the events now.
func (s *Server) Followers() int { return len(s.followers) }

// followEvents sends the events as they happen, until the client goes, takes nothing for sendTime, or the server stops. Nothing
// is kept for a client: each reads the events from the database, by their ids, as fast as it takes them.
func (s *Server) followEvents(w http.ResponseWriter, r *request, filter store.EventFilter) error {
	if r.query.Has("cursor") {
		return badQuery("cursor goes with a list", "to go on following take after, or the header Last-Event-ID")
	}
	select {
	case s.followers <- struct{}{}:
		defer func() { <-s.followers }()
	default:
		return &cortex.Error{Reason: cortex.ReasonTooManyFollowers, Message: fmt.Sprintf("%d follow the events already", cap(s.followers)),
			Hint: "end those that nobody reads (ss -xp, ss -tp), or raise the daemon's limit of descriptors (ulimit -n)"}
	}
	after, err := s.followStart(r, filter)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", eventStream)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Accel-Buffering", "no") // else nginx keeps events back
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	ctx, cancel := s.untilStopped(context.WithCancel(r.Context()))
	defer cancel()
	f := follower{s: s, w: w, filter: filter, after: after}
	if err := f.follow(ctx); err != nil {
		s.log.Debug("follower left", "err", err)
	}
	return nil
}

// followStart is the id after which it begins: what the client had last, by the header of a browser that comes back or by
// ?after=, else as EventStart says.
func (s *Server) followStart(r *request, filter store.EventFilter) (int64, error) {
	ctx, cancel := context.WithTimeout(r.Context(), readTime)
	defer cancel()
	after, given, err := lastSeen(r)
	if err != nil {
		return 0, err
	}
	if !given {
		return s.Store.EventStart(ctx, filter)
	}
	// A daemon that can't read yet is not sure how many there were; who comes back to it waits for the events with it.
	newest, err := s.Store.EventStart(ctx, store.EventFilter{})
	if err == nil && after > max(newest, s.Store.HighestEvent()) {
		return 0, badQuery(fmt.Sprintf("There is no event %d yet", after), fmt.Sprintf("the newest is %d; without an id only new ones come", newest))
	}
	return after, nil
}

// lastSeen is the id that the client names. The header wins: a browser that comes back sends it beside the query that it began
// with.
func lastSeen(r *request) (id int64, given bool, err error) {
	if r.query.Has("after") {
		if r.query.Has("since") || r.query.Has("limit") {
			return 0, false, badQuery("after goes with neither since nor limit", "each says where to begin: choose one")
		}
		if id, err = eventID("after", r.query.Get("after")); err != nil {
			return 0, false, err
		}
		given = true
	}
	if text := r.Header.Get("Last-Event-ID"); text != "" {
		id, err = eventID("Last-Event-ID", text)
		given = true
	}
	return id, given, err
}

func eventID(name, text string) (int64, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 0 {
		return 0, badQuery(fmt.Sprintf("%s: want an event's id, got %q", name, clip(text)), "take the id of the last event that came; 0 is before the first")
	}
	return id, nil
}

// follower is one client that follows.
type follower struct {
	s      *Server
	w      http.ResponseWriter
	filter store.EventFilter
	after  int64 // up to it all that the client wants was sent
}

// follow sends until ctx ends, when it returns nil, or the client is gone or too slow.
func (f *follower) follow(ctx context.Context) error {
	// The id alone, without an event: a client that is cut off before the first one then knows where it was.
	if err := f.send(fmt.Appendf(nil, "retry: %d\nid: %d\n\n", comeBack.Milliseconds(), f.after)); err != nil {
		return err
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	warned := false
	for {
		changed := f.s.Store.Changed() // before the look, so that what comes after it wakes
		err := f.sendNew(ctx)
		var again <-chan time.Time
		switch {
		case errors.As(err, new(unsent)):
			return err
		case ctx.Err() != nil:
			return nil
		case err != nil:
			if !warned {
				f.s.log.Warn("events not read; they are sent when they can be", "err", err)
			}
			again = time.After(againTime)
		}
		warned = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-again:
		case <-beat.C:
			// With the id, so that what the filter leaves out is not looked at again after a reconnect.
			if err := f.send(fmt.Appendf(nil, ": alive\nid: %d\n\n", f.after)); err != nil {
				return err
			}
		}
	}
}

// unsent is an error of sending: the client is gone, or takes nothing.
type unsent struct{ error }

// sendNew sends all that is there.
func (f *follower) sendNew(ctx context.Context) error {
	for {
		rctx, cancel := context.WithTimeout(ctx, readTime)
		events, next, err := f.s.Store.EventsAfter(rctx, f.filter, f.after, followBatch)
		cancel()
		if err != nil {
			return err
		}
		for _, e := range eventsOf(events) {
			piece, err := encodeEvent(e)
			if err != nil { // a row by hand that no JSON can hold; the next one is sent all the same
				f.s.log.Error("event not encoded", "id", e.ID, "err", err)
				continue
			}
			if err := f.send(piece); err != nil {
				return err
			}
		}
		f.after = next
		if len(events) < followBatch {
			return nil
		}
	}
}

func (f *follower) send(piece []byte) error {
	extendWrite(f.w)
	_, err := f.w.Write(piece)
	if err == nil {
		err = http.NewResponseController(f.w).Flush()
	}
	if err != nil {
		return unsent{err}
	}
	return nil
}

var oneLine = strings.NewReplacer("\r", " ", "\n", " ")

// encodeEvent is an event as a piece of the stream.
func encodeEvent(e Event) ([]byte, error) {
	data, err := encode(e)
	if err != nil {
		return nil, err
	}
	// A word by hand may be anything. The data ends its line itself.
	return fmt.Appendf(nil, "id: %d\nevent: %s\ndata: %s\n", e.ID, oneLine.Replace(e.Event), data), nil
}
