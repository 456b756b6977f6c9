package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"cortex"
	"cortex/store"
)

// eventQuery are the parameters of GET /events.
var eventQuery = []string{"type", "event", "dispatch", "bead", "since", "limit", "cursor", "follow", "after"}

// events answers GET /events: a page of the audit trail, newest first, or with ?follow= the events as they happen.
func (s *Server) events(w http.ResponseWriter, r *request) error {
	follow, err := wantsStream(r)
	if err != nil {
		return err
	}
	filter, err := eventFilterOf(r.query, time.Now())
	if err != nil {
		return err
	}
	if follow {
		return s.followEvents(w, r, filter)
	}
	if r.query.Has("after") {
		return badQuery("after goes with follow=true", "a list is gone on with by its cursor")
	}
	list, err := s.pageOfEvents(r.Context(), filter)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, list, s.log)
	return nil
}

// wantsStream reports whether the events are to be followed: ?follow=, or, where that is not given, what a browser's EventSource
// accepts.
func wantsStream(r *request) (bool, error) {
	if r.query.Has("follow") {
		return queryBool(r.query, "follow")
	}
	for _, accept := range r.Header.Values("Accept") {
		for _, kind := range strings.Split(accept, ",") {
			kind, _, _ = strings.Cut(kind, ";")
			if strings.EqualFold(strings.TrimSpace(kind), eventStream) {
				return true, nil
			}
		}
	}
	return false, nil
}

// pageOfEvents reads one page. One more than asked for tells whether another follows.
func (s *Server) pageOfEvents(ctx context.Context, filter store.EventFilter) (EventList, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	limit := filter.Limit
	if limit == 0 {
		limit = listDefault
	}
	filter.Limit = limit + 1
	events, err := s.Store.ListEvents(ctx, filter)
	if err != nil {
		return EventList{}, err
	}
	var list EventList
	if len(events) > limit {
		events = events[:limit]
		cursor := strconv.FormatInt(events[limit-1].ID, 10)
		list.NextCursor = &cursor
	}
	list.Events = eventsOf(events)
	return list, nil
}

// eventFilterOf reads the filter; its Limit is 0 where none is given.
func eventFilterOf(q url.Values, now time.Time) (store.EventFilter, error) {
	var f store.EventFilter
	var err error
	if f.Severities, err = wordsOf(q, "type", cortex.Severities); err != nil {
		return f, err
	}
	if f.Types, err = wordsOf(q, "event", cortex.EventTypes); err != nil {
		return f, err
	}
	if q.Has("dispatch") {
		id, ok := number(q.Get("dispatch"))
		if !ok || id < 1 {
			return f, badQuery(fmt.Sprintf("dispatch: want a number, got %q", clip(q.Get("dispatch"))), "for a bead's take bead")
		}
		f.Dispatch = id
	}
	f.Bead = q.Get("bead")
	if q.Has("bead") && f.Bead == "" {
		return f, badQuery("bead is empty", "leave it out, or name one")
	}
	if f.Since, err = querySince(q, now); err != nil {
		return f, err
	}
	if f.Limit, err = queryInt(q, "limit", 1, listMost, 0); err != nil {
		return f, err
	}
	f.Before, err = queryCursor(q)
	return f, err
}

// wordsOf reads a parameter that takes some of known: repeated, or a list with commas.
func wordsOf[W ~string](q url.Values, name string, known []W) ([]W, error) {
	var all []W
	words := make([]string, len(known))
	for i, w := range known {
		words[i] = string(w)
	}
	for _, list := range q[name] {
		for _, word := range strings.Split(list, ",") {
			word = strings.TrimSpace(word)
			if !slices.Contains(words, word) {
				hint := "there are " + strings.Join(words, ", ")
				if near := nearest(word, words); near != "" {
					hint = fmt.Sprintf("did you mean %q?", near)
				}
				return nil, badQuery(fmt.Sprintf("%s: %q is none", name, clip(word)), hint)
			}
			all = append(all, W(word))
		}
	}
	return all, nil
}
