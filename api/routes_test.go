package api

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

var discard = slog.New(slog.DiscardHandler)

// TestRouting: what is answered before any handler. The handlers of these routes say what they were asked.
func TestRouting(t *testing.T) {
	t.Parallel()
	s := testServer(t)
	for i := range s.routes {
		rt := &s.routes[i]
		rt.handle = func(_ *Server, w http.ResponseWriter, r *request) error {
			w.Header().Set("X-Route", rt.method+" "+rt.pattern+" "+r.id)
			return nil
		}
	}
	cases := []struct{ method, target, want string }{ // want: the route, or the reason (and Allow)
		{"GET", "/status", "GET /status "},
		{"HEAD", "/status", "GET /status "},
		{"GET", "/events?type=info&type=error&event=disk_low&event=disk_low", "GET /events "},
		{"GET", "/dispatches", "GET /dispatches "},
		{"GET", "/dispatches/12", "GET /dispatches/{id} 12"},
		{"GET", "/dispatches/cortex-abc.123", "GET /dispatches/{id} cortex-abc.123"},
		{"GET", "/dispatches/a%20b%2Fc", "GET /dispatches/{id} a b/c"},
		{"GET", "/dispatches/%C3%A4?wait=1s", "GET /dispatches/{id} ä"},
		{"GET", "/dispatches/...", "GET /dispatches/{id} ..."},
		{"POST", "/dispatches/cancel", "POST /dispatches/cancel "},
		{"POST", "/dispatches/12/cancel", "POST /dispatches/{id}/cancel 12"},
		{"GET", "/dispatches/12/output?tail=5&plain=true", "GET /dispatches/{id}/output 12"},
		{"HEAD", "/dispatches/12/output", "GET /dispatches/{id}/output 12"},
		{"GET", "/dispatches?status=running&status=failed", "GET /dispatches "},
		{"POST", "/scheduler/pause", "POST /scheduler/pause "},
		{"POST", "/config/reload", "POST /config/reload "},

		{"GET", "/holds?all=true&limit=5&cursor=17", "GET /holds "},
		{"POST", "/holds", "POST /holds "},
		{"DELETE", "/holds/17", "DELETE /holds/{id} 17"},
		{"DELETE", "/holds/disk", "DELETE /holds/{id} disk"},

		{"GET", "/", "not_found"},
		{"GET", "/nothing", "not_found"},
		{"GET", "/status/", "not_found"},
		{"GET", "//status", "not_found"},
		{"GET", "/./status", "not_found"},
		{"GET", "/x/../status", "not_found"},
		{"GET", "/x/%2e%2e/status", "not_found"},
		{"GET", "/dispatches/..", "not_found"},
		{"GET", "/dispatches/%2e", "not_found"},
		{"GET", "/dispatches/%2e%2E", "not_found"},
		{"GET", "/dispatches/..%2fstatus", "not_found"},
		{"GET", "/dispatches/a%2f%2fb", "not_found"},
		{"GET", "/dispatches/a%2f", "not_found"},
		{"GET", "/dispatches/", "not_found"},
		{"GET", "/dispatches//output", "not_found"},
		{"GET", "/dispatches/12/", "not_found"},
		{"GET", "/dispatches/12/output/", "not_found"},
		{"GET", "/dispatches/12/explanation", "not_found"},
		{"POST", "/scheduler/drain", "not_found"},
		{"GET", "/STATUS", "not_found"},
		{"OPTIONS", "*", "not_found"},

		{"POST", "/status", "method_not_allowed GET, HEAD"},
		{"GET", "/scheduler/pause", "method_not_allowed POST"},
		{"HEAD", "/scheduler/pause", "method_not_allowed POST"},
		{"DELETE", "/dispatches", "method_not_allowed GET, HEAD, POST"},
		{"OPTIONS", "/dispatches", "method_not_allowed GET, HEAD, POST"},
		{"GET", "/dispatches/cancel", "method_not_allowed POST"},
		{"GET", "/config/reload", "method_not_allowed POST"},
		{"GET", "/dispatches/12/cancel", "method_not_allowed POST"},
		{"PUT", "/dispatches/12", "method_not_allowed GET, HEAD, PATCH"},
		{"get", "/status", "method_not_allowed GET, HEAD"},

		{"DELETE", "/holds", "method_not_allowed GET, HEAD, POST"},
		{"GET", "/holds/17", "method_not_allowed DELETE"},

		{"POST", "/dispatches", "token_required"},
		{"GET", "/holds?al=true", "bad_query"},
		{"GET", "/status?x=1", "bad_query"},
		{"GET", "/status?%zz", "bad_query"},
		{"GET", "/dispatches?limit=1&limit=2", "bad_query"},
		{"GET", "/events?status=failed", "bad_query"},
		{"GET", "/events?bead=a&bead=b", "bad_query"},
		{"GET", "/dispatches?Limit=1", "bad_query"},
		{"GET", "/dispatches/12/output?follow=true", "not_available"},
		{"POST", "/scheduler/resume?verify=30s", "not_available"},
		{"POST", "/scheduler/pause?ttl=30s", "bad_query"},
	}
	for _, c := range cases {
		t.Run(c.method+" "+c.target, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			r := httptest.NewRequest("GET", "/", nil)
			r.Method = c.method
			u, err := url.Parse("http://localhost" + strings.Replace(c.target, "*", "/*", 1))
			if err != nil {
				t.Fatal(err)
			}
			if c.target == "*" {
				u.Path = "*"
			}
			r.URL = u
			s.ServeHTTP(w, r)
			got := w.Header().Get("X-Route")
			if got == "" {
				var p Problem
				if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
					t.Fatalf("%s: %v", w.Body, err)
				}
				if p.Code != w.Code || p.Error == "" || p.Hint == "" || w.Header().Get("Content-Type") != "application/json" {
					t.Errorf("%d %s", w.Code, w.Body)
				}
				got = strings.TrimSpace(p.Reason + " " + w.Header().Get("Allow"))
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if w.Code >= 300 && w.Code < 400 {
				t.Errorf("redirected: %d", w.Code)
			}
		})
	}
}

func TestPanicIsAnswered(t *testing.T) {
	t.Parallel()
	s := testServer(t)
	s.routes = []route{{method: "GET", pattern: "/x", handle: func(*Server, http.ResponseWriter, *request) error { panic("bug") }}}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("GET", "/x", nil))
	if w.Code != 500 || !strings.Contains(w.Body.String(), `"reason":"internal"`) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}
