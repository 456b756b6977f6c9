package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"cortex"
	"cortex/config"
	"cortex/store"
)

// statuses is the one place where a reason becomes an HTTP status. docs/errors.md has a heading for each.
var statuses = map[cortex.Reason]int{
	cortex.ReasonBadRequest:       http.StatusBadRequest,
	cortex.ReasonBadJSON:          http.StatusBadRequest,
	cortex.ReasonUnknownField:     http.StatusBadRequest,
	cortex.ReasonBadValue:         http.StatusBadRequest,
	cortex.ReasonBadQuery:         http.StatusBadRequest,
	cortex.ReasonMissingCommand:   http.StatusBadRequest,
	cortex.ReasonBadWorkdir:       http.StatusBadRequest,
	cortex.ReasonNotAvailable:     http.StatusBadRequest,
	cortex.ReasonTokenRequired:    http.StatusUnauthorized,
	cortex.ReasonTokenInvalid:     http.StatusUnauthorized,
	cortex.ReasonForeignHost:      http.StatusForbidden,
	cortex.ReasonForeignOrigin:    http.StatusForbidden,
	cortex.ReasonPeerRefused:      http.StatusForbidden,
	cortex.ReasonNotFound:         http.StatusNotFound,
	cortex.ReasonMethodNotAllowed: http.StatusMethodNotAllowed,
	cortex.ReasonNotRunning:       http.StatusConflict,
	cortex.ReasonNotPending:       http.StatusConflict,
	cortex.ReasonHoldComputed:     http.StatusConflict,
	cortex.ReasonBeingStopped:     http.StatusConflict,
	cortex.ReasonNotSupported:     http.StatusConflict,
	cortex.ReasonFreezeFailed:     http.StatusInternalServerError,
	cortex.ReasonKeyConflict:      http.StatusConflict,
	cortex.ReasonTooLarge:         http.StatusRequestEntityTooLarge,
	cortex.ReasonDBLocked:         http.StatusInternalServerError,
	cortex.ReasonDBHung:           http.StatusInternalServerError,
	cortex.ReasonDiskFull:         http.StatusInsufficientStorage,
	cortex.ReasonInternal:         http.StatusInternalServerError,
	cortex.ReasonStopping:         http.StatusServiceUnavailable,
	cortex.ReasonWaitTimeout:      http.StatusGatewayTimeout,
	cortex.ReasonOutputGone:       http.StatusNotFound,
	cortex.ReasonConfigRefused:    http.StatusBadRequest,
	cortex.ReasonTooManyFollowers: http.StatusServiceUnavailable,
}

// problemOf is err as one for people. What is none, nor a condition of the store's with a reason of its own, is internal:
// its text may hold paths and more, so that it goes to the log and not to the client.
func problemOf(err error) *cortex.Error {
	var known *cortex.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, store.ErrLocked), errors.Is(err, context.DeadlineExceeded):
		return &cortex.Error{Reason: cortex.ReasonDBLocked, Message: "Database lock timeout", Err: err,
			Hint: "another process holds the lock on cortex.db (lsof ~/.cortex/cortex.db); let it end, then try again: nothing was changed"}
	case errors.Is(err, store.ErrNotFound):
		return &cortex.Error{Reason: cortex.ReasonNotFound, Message: "No such dispatch", Hint: "cortex list shows those that there are", Err: err}
	}
	return &cortex.Error{Reason: cortex.ReasonInternal, Message: "Internal error", Hint: "the daemon's log has the cause", Err: err}
}

// writeProblem answers with err, and logs what is cortex's own trouble or the host's: a client's mistakes are told to
// the client alone.
func writeProblem(w http.ResponseWriter, r *http.Request, err error, log *slog.Logger) {
	p := problemOf(err)
	code, ok := statuses[p.Reason]
	if !ok {
		code = http.StatusInternalServerError
	}
	switch {
	case r.Context().Err() != nil: // nobody is there to read it, and often it is the consequence of that
	case code == http.StatusInternalServerError:
		log.Error("request failed", "method", r.Method, "path", r.URL.Path, "reason", string(p.Reason), "err", err)
	}
	h := w.Header()
	switch code {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "1")
	}
	// A handler may have set these for the answer that it then could not give.
	h.Del("Location")
	answer := Problem{Error: p.Message, Code: code, Reason: string(p.Reason), Hint: p.Hint}
	if wrong, ok := errors.AsType[config.Problems](p.Err); ok {
		answer.Problems = mistakesOf(wrong)
	}
	writeJSON(w, code, answer, log)
}

// writeJSON answers with v. What can't be sent has no reader any more; it is noted at debug level.
func writeJSON(w http.ResponseWriter, code int, v any, log *slog.Logger) {
	body, err := encode(v)
	if err != nil { // a float that is not a number, written by hand into the database
		log.Error("answer not encoded", "err", err)
		code = http.StatusInternalServerError
		body = []byte(`{"error":"Internal error","code":500,"reason":"internal","hint":"the daemon's log has the cause"}` + "\n")
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	extendWrite(w)
	w.WriteHeader(code)
	if _, err := w.Write(body); err != nil {
		log.Debug("answer not sent", "err", err)
	}
}
