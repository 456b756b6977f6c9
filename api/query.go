package api

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"cortex"
)

// maxWait bounds ?wait=: whoever wants to wait longer asks again.
const maxWait = day

func badQuery(what, hint string) error {
	return &cortex.Error{Reason: cortex.ReasonBadQuery, Message: what, Hint: hint}
}

// repeated are the parameters that take several words: with commas, or given more than once.
var repeated = []string{"status", "type", "event"}

// checkQuery parses a route's query and refuses what the route does not know: a filter that is misspelt and ignored
// would show, or cancel, everything.
func checkQuery(r *http.Request, rt route) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badQuery("The query can't be read: "+err.Error(), "encode what is no letter or digit (curl -G --data-urlencode)")
	}
	for name, given := range values {
		switch {
		case slices.Contains(rt.later, name):
			return nil, notBuilt("The query parameter " + name)
		case !slices.Contains(rt.query, name):
			hint := "this path takes no query"
			if len(rt.query) > 0 {
				hint = "it takes " + strings.Join(rt.query, ", ")
			}
			if near := nearest(name, rt.query); near != "" {
				hint = fmt.Sprintf("did you mean %q?", near)
			}
			return nil, badQuery(fmt.Sprintf("Unknown query parameter %q", clip(name)), hint)
		case len(given) > 1 && !slices.Contains(repeated, name):
			return nil, badQuery(fmt.Sprintf("The query parameter %q is given twice", name), "leave one of them out")
		}
	}
	return values, nil
}

// queryInt is a whole number of the query, or otherwise where it is not given.
func queryInt(q url.Values, name string, low, high, otherwise int) (int, error) {
	if !q.Has(name) {
		return otherwise, nil
	}
	n, err := strconv.Atoi(q.Get(name))
	if err != nil || n < low || n > high {
		return 0, badQuery(fmt.Sprintf("%s: want a whole number from %d to %d, got %q", name, low, high, clip(q.Get(name))), "correct "+name)
	}
	return n, nil
}

// queryCursor is ?cursor=, the id that a page ends before; 0 where it is not given.
func queryCursor(q url.Values) (int64, error) {
	if !q.Has("cursor") {
		return 0, nil
	}
	before, err := strconv.ParseInt(q.Get("cursor"), 10, 64)
	if err != nil || before < 1 {
		return 0, badQuery(fmt.Sprintf("cursor: %q is none", clip(q.Get("cursor"))), "take next_cursor of the last answer")
	}
	return before, nil
}

// queryBool is a boolean of the query; ?plain alone is true.
func queryBool(q url.Values, name string) (bool, error) {
	if !q.Has(name) {
		return false, nil
	}
	switch q.Get(name) {
	case "", "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, badQuery(fmt.Sprintf("%s: want true or false, got %q", name, clip(q.Get(name))), "correct "+name)
}

// queryWait is ?wait=, 0 where it is not given.
func queryWait(q url.Values) (time.Duration, error) {
	if !q.Has("wait") {
		return 0, nil
	}
	d, err := durationBetween(q.Get("wait"), time.Millisecond, maxWait)
	if err != nil {
		return 0, badQuery("wait: "+err.Error(), "durations have a unit: 30s, 10m")
	}
	return d, nil
}

// querySince is ?since=: a point in time, or a duration that says how long ago. The zero time where it is not given.
func querySince(q url.Values, now time.Time) (time.Time, error) {
	if !q.Has("since") {
		return time.Time{}, nil
	}
	text := q.Get("since")
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	ago, err := ParseDuration(text)
	if err != nil {
		return time.Time{}, badQuery(fmt.Sprintf("since: want a time such as 2026-02-18T06:01:00Z, or how long ago such as 1h30m, got %q",
			clip(text)), "correct since (a + must be written %2B in a query)")
	}
	return now.Add(-ago), nil
}
