package cortex

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Every event that is declared can be filtered by (EventTypes) and is explained to operators.
func TestEventTypes(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []EventType
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "EventType" {
			word, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			declared = append(declared, EventType(word))
		}
		return true
	})
	if len(declared) < 29 {
		t.Fatalf("only %d events found in event.go", len(declared))
	}
	doc, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range declared {
		if !word.Valid() {
			t.Errorf("EventTypes lacks %s", word)
		}
		if !strings.Contains(string(doc), "`"+string(word)+"`") {
			t.Errorf("docs/operations.md does not explain %s", word)
		}
	}
	for _, word := range EventTypes {
		if !slices.Contains(declared, word) {
			t.Errorf("%s is in EventTypes and not in event.go", word)
		}
	}
}
