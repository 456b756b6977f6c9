package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"maps"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cortex"
	"cortex/store"
)

// reasonsInSource are the constants of type Reason in error.go.
func reasonsInSource(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../error.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "Reason" {
			return true
		}
		for _, v := range spec.Values {
			word, err := strconv.Unquote(v.(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			reasons = append(reasons, word)
		}
		return true
	})
	slices.Sort(reasons)
	return reasons
}

// TestReasons keeps the reasons, their HTTP statuses and the error reference equal.
func TestReasons(t *testing.T) {
	t.Parallel()
	want := reasonsInSource(t)
	if len(want) < 20 {
		t.Fatalf("only %d reasons found in error.go", len(want))
	}
	var inTable []string
	for reason := range maps.Keys(statuses) {
		inTable = append(inTable, string(reason))
	}
	slices.Sort(inTable)
	if !slices.Equal(inTable, want) {
		t.Errorf("statuses has %v, error.go %v", inTable, want)
	}
	doc, err := os.ReadFile("../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	headings := regexp.MustCompile("(?m)^### `([a-z_]+)` · ([0-9]+)$").FindAllStringSubmatch(string(doc), -1)
	var inDoc []string
	for _, h := range headings {
		inDoc = append(inDoc, h[1])
		if got := strconv.Itoa(statuses[cortex.Reason(h[1])]); got != h[2] {
			t.Errorf("docs/errors.md says %s for %s, the table %s", h[2], h[1], got)
		}
	}
	slices.Sort(inDoc)
	if !slices.Equal(inDoc, want) {
		t.Errorf("docs/errors.md explains %v, error.go has %v", inDoc, want)
	}
}

func TestWriteProblem(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		err    error
		code   int
		want   string
		header [2]string
		logged bool
	}{
		{"a client's mistake", &cortex.Error{Reason: cortex.ReasonBadValue, Message: "priority: want …", Hint: "correct it"}, 400,
			`{"error":"priority: want …","code":400,"reason":"bad_value","hint":"correct it"}`, [2]string{}, false},
		{"wrapped", fmt.Errorf("submit: %w", &cortex.Error{Reason: cortex.ReasonDBLocked, Message: "Database lock timeout", Hint: "pid 7"}), 500,
			`{"error":"Database lock timeout","code":500,"reason":"db_locked","hint":"pid 7"}`, [2]string{}, true},
		{"a lock that nobody has explained", fmt.Errorf("x: %w", store.ErrLocked), 500,
			`{"error":"Database lock timeout","code":500,"reason":"db_locked","hint":"`, [2]string{}, true},
		{"time is over", context.DeadlineExceeded, 500, `{"error":"Database lock timeout",`, [2]string{}, true},
		{"not found", store.ErrNotFound, 404, `{"error":"No such dispatch","code":404,"reason":"not_found",`, [2]string{}, false},
		{"our bug keeps its secret", errors.New("open /secret: no"), 500,
			`{"error":"Internal error","code":500,"reason":"internal","hint":"the daemon's log has the cause"}`, [2]string{}, true},
		{"no token", &cortex.Error{Reason: cortex.ReasonTokenRequired}, 401, `{"error":"","code":401,`, [2]string{"WWW-Authenticate", "Bearer"}, false},
		{"stopping", &cortex.Error{Reason: cortex.ReasonStopping}, 503, `{"error":"","code":503,`, [2]string{"Retry-After", "1"}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			w := httptest.NewRecorder()
			writeProblem(w, httptest.NewRequest("GET", "/x", nil), c.err, slog.New(slog.NewTextHandler(&log, nil)))
			if w.Code != c.code || !strings.HasPrefix(w.Body.String(), c.want) {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			if w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("Content-Type %q", w.Header().Get("Content-Type"))
			}
			if c.header[0] != "" && w.Header().Get(c.header[0]) != c.header[1] {
				t.Errorf("%s is %q", c.header[0], w.Header().Get(c.header[0]))
			}
			if logged := log.Len() > 0; logged != c.logged {
				t.Errorf("logged: %v, %s", logged, log.String())
			}
			var p map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || len(p) != 4 {
				t.Errorf("%v has not the four fields (%v)", p, err)
			}
		})
	}
}

// TestUnencodable: a value that JSON can't hold, written by hand into the database, is an answer in shape, too.
func TestUnencodable(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	writeJSON(w, 200, map[string]any{"x": func() {}}, slog.New(slog.DiscardHandler))
	if w.Code != 500 || !strings.Contains(w.Body.String(), `"reason":"internal"`) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}
