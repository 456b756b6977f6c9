package api

import (
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"

	"cortex"
)

// needs says what a route asks of its caller.
type needs int

const (
	look  needs = iota // reads
	act                // changes something; starts nothing
	start              // starts a command or types into one: the token, or the socket
)

// route is one line of the table from which all routing comes: what is found, 404 and 405.
type route struct {
	method  string
	pattern string // segments; {id} takes any one
	handle  handler
	needs   needs
	query   []string // query parameters that it takes
	later   []string // parameters of the contract that are not built yet
}

// handler answers a request, or returns the error to answer with; never both.
type handler func(s *Server, w http.ResponseWriter, r *request) error

// request is a request that was routed.
type request struct {
	*http.Request
	id    string // what stands for {id}, decoded
	query url.Values
}

// listQuery are the parameters of every list of dispatches.
var listQuery = []string{"status", "project", "bead", "since", "limit", "cursor"}

// table returns the routes. A later one is a line here and a file beside the others.
func table() []route {
	return []route{
		{"GET", "/status", (*Server).status, look, nil, nil},
		{"GET", "/health", (*Server).health, look, nil, nil},
		{"GET", "/metrics", (*Server).metrics, look, nil, nil},
		{"GET", "/scheduler/status", (*Server).schedulerStatus, look, nil, nil},
		{"POST", "/scheduler/pause", (*Server).pause, act, nil, nil},
		{"POST", "/scheduler/resume", (*Server).resume, act, nil, []string{"verify"}},
		{"GET", "/scheduler/queue", (*Server).queue, look, []string{"limit"}, nil},
		{"POST", "/config/reload", (*Server).reload, act, nil, nil},
		{"GET", "/holds", (*Server).listHolds, look, []string{"all", "limit", "cursor"}, nil},
		{"POST", "/holds", (*Server).setHold, act, nil, nil},
		{"DELETE", "/holds/{id}", (*Server).liftHold, act, nil, nil},
		{"GET", "/events", (*Server).events, look, eventQuery, nil},
		{"GET", "/dispatches", (*Server).listDispatches, look, listQuery, nil},
		{"POST", "/dispatches", (*Server).submit, start, nil, nil},
		{"POST", "/dispatches/cancel", (*Server).cancelMany, act, []string{"wait"}, nil},
		{"POST", "/dispatches/freeze", (*Server).freezeMany, act, nil, nil},
		{"POST", "/dispatches/thaw", (*Server).thawMany, act, nil, nil},
		{"GET", "/dispatches/{id}", (*Server).showDispatch, look, append([]string{"wait"}, listQuery...), nil},
		{"GET", "/dispatches/{id}/explain", (*Server).explain, look, nil, nil},
		{"PATCH", "/dispatches/{id}", (*Server).change, act, nil, nil},
		{"POST", "/dispatches/{id}/cancel", (*Server).cancelOne, act, []string{"wait"}, nil},
		{"POST", "/dispatches/{id}/freeze", (*Server).freezeOne, act, nil, nil},
		{"POST", "/dispatches/{id}/thaw", (*Server).thawOne, act, nil, nil},
		{"GET", "/dispatches/{id}/output", (*Server).output, look, []string{"tail", "plain", "attempt"}, []string{"follow"}},
	}
}

// ServeHTTP routes one request. It is called behind the guard.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer s.recover(w, r)
	if err := s.route(w, r); err != nil {
		writeProblem(w, r, err, s.log)
	}
}

func (s *Server) route(w http.ResponseWriter, r *http.Request) error {
	path, ok := segments(r.URL.EscapedPath())
	if !ok {
		return notFoundPath()
	}
	// A literal segment wins over {id}, whatever the method: GET /dispatches/cancel is a method that is not allowed
	// there, and no look for a bead of that name.
	var found []route
	var id string
	literal := false
	for _, rt := range s.routes {
		value, exact, ok := match(rt.pattern, path)
		if !ok || literal && !exact {
			continue
		}
		if exact && !literal {
			found, literal = nil, true
		}
		found, id = append(found, rt), value
	}
	if len(found) == 0 {
		return notFoundPath()
	}
	for _, rt := range found {
		if rt.method == r.Method || rt.method == http.MethodGet && r.Method == http.MethodHead {
			return s.call(rt, w, &request{Request: r, id: id})
		}
	}
	allow := allowed(found)
	w.Header().Set("Allow", allow)
	return &cortex.Error{Reason: cortex.ReasonMethodNotAllowed,
		Message: "The method " + clip(r.Method) + " is not allowed here", Hint: "use " + allow}
}

// call runs one route: who may, then the query, then the handler.
func (s *Server) call(rt route, w http.ResponseWriter, r *request) error {
	if rt.needs == start {
		if err := s.guard.Load().mayStart(r.Request); err != nil {
			return err
		}
	}
	query, err := checkQuery(r.Request, rt)
	if err != nil {
		return err
	}
	r.query = query
	return rt.handle(s, w, r)
}

// recover answers a panic of a handler with 500, so that one request never takes the daemon down.
func (s *Server) recover(w http.ResponseWriter, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	s.log.Error("handler panicked", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
	writeProblem(w, r, &cortex.Error{Reason: cortex.ReasonInternal, Message: "Internal error", Hint: "the daemon's log has the cause"}, s.log)
}

func notFoundPath() error {
	return &cortex.Error{Reason: cortex.ReasonNotFound, Message: "No such path", Hint: "paths are /status, /health, /metrics, /scheduler/status, /scheduler/queue, /config/reload, /holds, /events, /dispatches and below"}
}

func allowed(routes []route) string {
	var methods []string
	for _, rt := range routes {
		methods = append(methods, rt.method)
		if rt.method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	slices.Sort(methods)
	return strings.Join(slices.Compact(methods), ", ")
}

// segments splits and decodes a path. It is not ok where the path is not in its one plain form: with an empty segment
// (//, or a slash at the end), with . or .. however they are encoded, also between encoded slashes. Such a path is never
// cleaned up and redirected: what it means is then decided in two places.
func segments(escaped string) ([]string, bool) {
	rest, ok := strings.CutPrefix(escaped, "/")
	if !ok {
		return nil, false
	}
	parts := strings.Split(rest, "/")
	for i, part := range parts {
		plain, err := url.PathUnescape(part)
		if err != nil {
			return nil, false
		}
		for _, piece := range strings.Split(plain, "/") {
			if piece == "" || piece == "." || piece == ".." {
				return nil, false
			}
		}
		parts[i] = plain
	}
	return parts, true
}

// match reports whether the segments are the pattern's, what stands for {id}, and whether nothing did.
func match(pattern string, path []string) (id string, exact, ok bool) {
	want := strings.Split(pattern[1:], "/")
	if len(want) != len(path) {
		return "", false, false
	}
	exact = true
	for i, segment := range want {
		switch {
		case segment == "{id}":
			id, exact = path[i], false
		case segment != path[i]:
			return "", false, false
		}
	}
	return id, exact, true
}
