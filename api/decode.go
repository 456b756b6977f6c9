package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"cortex"
)

// Limits of a request.
const (
	maxBody   = 8 << 20 // bytes
	maxHeader = 16 << 10
	bodyTime  = 30 * time.Second // to send a body
)

// fields is what a body may hold: for each name, what takes its value. A null is a field that was not given.
type fields map[string]func(value) error

// value is one JSON value and the path to it, for messages.
type value struct {
	name string
	raw  json.RawMessage
}

// readBody reads a body of at most maxBody bytes. It answers too_large before anything is parsed, and where the length
// is announced before anything is read.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	tooLarge := &cortex.Error{Reason: cortex.ReasonTooLarge, Message: "The body is larger than 8 MiB",
		Hint: "hand large input to the command in a file"}
	// Not every connection can have a deadline (a test's recorder); the header's and the idle limits remain.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	if r.ContentLength > maxBody {
		drain(r.Body)
		return nil, tooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var limit *http.MaxBytesError
	switch {
	case errors.As(err, &limit):
		drain(r.Body)
		return nil, tooLarge
	case err != nil:
		return nil, &cortex.Error{Reason: cortex.ReasonBadJSON, Message: "The body ended early or came too slowly", Hint: "send it again", Err: err}
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return body, nil
}

// maxDrained bounds what is read of a body that is refused for its size.
const maxDrained = 8 * maxBody

// drain reads on for a client that is still sending: it would else be cut off, and never see the answer. How much of it comes
// does not matter.
func drain(body io.Reader) {
	_, _ = io.CopyN(io.Discard, body, maxDrained)
}

// decodeBody takes the body's fields. The content type does not matter (curl -d says form-urlencoded); an empty body is
// one without fields. Where a field is wrong the error is the first one's, in the body's order.
func decodeBody(w http.ResponseWriter, r *http.Request, known fields) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	if err := checkJSON(body); err != nil {
		return err
	}
	return eachField("", body, func(v value) error {
		take, ok := known[v.name]
		if !ok {
			return unknownField(v.name, known)
		}
		if v.null() {
			return nil
		}
		return take(v)
	})
}

func unknownField(name string, known fields) error {
	names := make([]string, 0, len(known))
	for n := range known {
		names = append(names, n)
	}
	slices.Sort(names)
	hint := "known fields: " + strings.Join(names, ", ")
	if near := nearest(name, names); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	return &cortex.Error{Reason: cortex.ReasonUnknownField, Message: fmt.Sprintf("Unknown field %q", clip(name)), Hint: hint}
}

// checkJSON says where a body is not JSON, or not UTF-8: encoding/json would replace what is not, and a command would get
// other arguments than were meant.
func checkJSON(body []byte) error {
	if !utf8.Valid(body) {
		at := 0
		for at < len(body) {
			r, size := utf8.DecodeRune(body[at:])
			if r == utf8.RuneError && size == 1 {
				break
			}
			at += size
		}
		return badJSON(body, at, "not UTF-8")
	}
	if !json.Valid(body) {
		var any json.RawMessage
		err := json.Unmarshal(body, &any)
		return badJSON(body, syntaxOffset(body), err.Error())
	}
	if at := loneSurrogate(body); at >= 0 {
		return badJSON(body, at, "half of a surrogate pair")
	}
	return nil
}

// syntaxOffset is where a body stops being JSON: the offset of the wrong byte, or its length where it is not complete. A
// SyntaxError's own Offset can't tell a wrong last byte from an end that comes too early; behind one more byte, wrong in
// every state, it can.
func syntaxOffset(body []byte) int {
	var any json.RawMessage
	var syntax *json.SyntaxError
	if errors.As(json.Unmarshal(append(slices.Clone(body), 1), &any), &syntax) {
		return int(syntax.Offset) - 1
	}
	return 0
}

func badJSON(body []byte, at int, what string) error {
	before := body[:min(at, len(body))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return &cortex.Error{Reason: cortex.ReasonBadJSON,
		Message: fmt.Sprintf("The body is not JSON: line %d, column %d: %s", line, column, what),
		Hint:    "send one JSON object, in UTF-8"}
}

// loneSurrogate is the offset of an escape \uD800 to \uDFFF that is no half of a pair, or -1. The body is valid JSON.
func loneSurrogate(body []byte) int {
	unit := func(at int) (code int, ok bool) { // the escape \uXXXX at that offset
		if at+6 > len(body) || body[at] != '\\' || body[at+1] != 'u' {
			return 0, false
		}
		_, err := fmt.Sscanf(string(body[at+2:at+6]), "%04x", &code)
		return code, err == nil
	}
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' {
			continue
		}
		code, ok := unit(i)
		switch {
		case !ok:
			i++ // \" or \\ and the like: skip what is escaped
		case code >= 0xDC00 && code <= 0xDFFF:
			return i
		case code >= 0xD800 && code <= 0xDBFF:
			if low, ok := unit(i + 6); !ok || low < 0xDC00 || low > 0xDFFF {
				return i
			}
			i += 11
		default:
			i += 5
		}
	}
	return -1
}

// eachField calls take for each member of a JSON object (valid JSON), in order. A name that comes twice is refused: it
// would be anybody's guess which one counts.
func eachField(path string, object []byte, take func(value) error) error {
	dec := json.NewDecoder(bytes.NewReader(object))
	start, err := dec.Token()
	if err != nil || start != json.Delim('{') {
		if path == "" {
			return &cortex.Error{Reason: cortex.ReasonBadJSON, Message: "The body is not a JSON object but " + kindOf(object),
				Hint: `send fields: {"name": "value"}`}
		}
		return wrong(path, "an object", value{path, object})
	}
	seen := map[string]bool{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return badJSON(object, int(dec.InputOffset()), err.Error())
		}
		name, _ := key.(string) // a key is always one
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return badJSON(object, int(dec.InputOffset()), err.Error())
		}
		if seen[name] {
			return &cortex.Error{Reason: cortex.ReasonBadJSON, Message: fmt.Sprintf("The field %q is given twice", clip(name)),
				Hint: "leave one of them out"}
		}
		seen[name] = true
		if path != "" {
			name = path + "." + name
		}
		if err := take(value{name, raw}); err != nil {
			return err
		}
	}
	return nil
}

func (v value) null() bool { return string(v.raw) == "null" }

// kindOf names a JSON value's type for people.
func kindOf(raw []byte) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return "nothing"
	}
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

// wrong is the error of a value that is not of the wanted type.
func wrong(name, want string, got value) error {
	return badValue(name, "want "+want+", got "+kindOf(got.raw))
}

func badValue(name, what string) error {
	return &cortex.Error{Reason: cortex.ReasonBadValue, Message: clip(name) + ": " + what, Hint: "correct the field " + clip(name)}
}

// The takers of values.

func takeString(into *string) func(value) error {
	return func(v value) error {
		if json.Unmarshal(v.raw, into) != nil {
			return wrong(v.name, "a string", v)
		}
		if strings.ContainsRune(*into, 0) {
			return badValue(v.name, "a NUL character can't be passed on")
		}
		return nil
	}
}

func takeStrings(into *[]string) func(value) error {
	return func(v value) error {
		var list []json.RawMessage
		if json.Unmarshal(v.raw, &list) != nil {
			return wrong(v.name, "a list of strings", v)
		}
		for i, raw := range list {
			var s string
			item := value{fmt.Sprintf("%s[%d]", v.name, i), raw}
			if item.null() {
				return wrong(item.name, "a string", item)
			}
			if err := takeString(&s)(item); err != nil {
				return err
			}
			*into = append(*into, s)
		}
		return nil
	}
}

func takeInt(into *int, low, high int) func(value) error {
	return func(v value) error {
		want := fmt.Sprintf("a whole number from %d to %d", low, high)
		var n float64
		if json.Unmarshal(v.raw, &n) != nil {
			return wrong(v.name, want, v)
		}
		if n != math.Trunc(n) || n < float64(low) || n > float64(high) {
			return badValue(v.name, fmt.Sprintf("want %s, got %s", want, clip(string(v.raw))))
		}
		*into = int(n)
		return nil
	}
}

func takeID(into *int64) func(value) error {
	return func(v value) error {
		if json.Unmarshal(v.raw, into) != nil || *into < 1 {
			return badValue(v.name, "want an id, a whole number from 1 on, got "+clip(string(v.raw)))
		}
		return nil
	}
}

func takeIDs(into *[]int64, most int) func(value) error {
	return func(v value) error {
		var list []json.RawMessage
		if json.Unmarshal(v.raw, &list) != nil {
			return wrong(v.name, "a list of ids", v)
		}
		if len(list) == 0 || len(list) > most {
			return badValue(v.name, fmt.Sprintf("want 1 to %d ids, got %d", most, len(list)))
		}
		for i, raw := range list {
			var id int64
			item := value{fmt.Sprintf("%s[%d]", v.name, i), raw}
			if item.null() || json.Unmarshal(raw, &id) != nil {
				return wrong(item.name, "an id, a whole number", item)
			}
			if !slices.Contains(*into, id) {
				*into = append(*into, id)
			}
		}
		return nil
	}
}

// takeTime takes a time, or how long from now.
func takeTime(into *time.Time, now time.Time) func(value) error {
	return func(v value) error {
		var text string
		if err := takeText(&text, maxName)(v); err != nil {
			return err
		}
		if at, err := time.Parse(time.RFC3339, text); err == nil {
			if at = at.UTC(); at.Year() < 1 || at.After(now.Add(maxTimeout)) {
				return badValue(v.name, fmt.Sprintf("want a time within ten years, got %q", clip(text)))
			}
			*into = at
			return nil
		}
		after, err := durationBetween(text, 0, maxTimeout)
		if err != nil {
			return badValue(v.name, fmt.Sprintf("want a time such as 2026-02-18T06:01:00Z, or how long from now such as 1h30m, got %q", clip(text)))
		}
		*into = now.Add(after).UTC()
		return nil
	}
}

// takeDuration takes a duration string between low and high.
func takeDuration(into *time.Duration, low, high time.Duration) func(value) error {
	return func(v value) error {
		var text string
		if json.Unmarshal(v.raw, &text) != nil {
			return &cortex.Error{Reason: cortex.ReasonBadValue,
				Message: v.name + ": want a duration as a string, got " + kindOf(v.raw), Hint: `durations have a unit: "30s", "10m", "1h30m"`}
		}
		d, err := durationBetween(text, low, high)
		if err != nil {
			return &cortex.Error{Reason: cortex.ReasonBadValue, Message: v.name + ": " + err.Error(), Hint: `durations have a unit: "30s", "10m", "1h30m"`}
		}
		*into = d
		return nil
	}
}

func durationBetween(text string, low, high time.Duration) (time.Duration, error) {
	d, err := ParseDuration(text)
	if err == nil && (d < low || d > high) {
		err = fmt.Errorf("want a duration from %s to %s, got %q", low, FormatDuration(high), clip(text))
	}
	return d, err
}

// takeMap takes an object whose values are strings.
func takeMap(into *map[string]string) func(value) error {
	return func(v value) error {
		entries := map[string]string{}
		err := eachField(v.name, v.raw, func(item value) error {
			var s string
			if item.null() {
				return wrong(item.name, "a string", item)
			}
			err := takeString(&s)(item)
			entries[strings.TrimPrefix(item.name, v.name+".")] = s
			return err
		})
		*into = entries
		return err
	}
}

// notAvailable refuses a field of the contract that this version does not have. Never is one ignored: a caller who asks
// for a retry or a start at six must not believe that it will happen.
func notAvailable(v value) error { return notBuilt("The field " + v.name) }

func notBuilt(what string) error {
	return &cortex.Error{Reason: cortex.ReasonNotAvailable, Message: what + " is not available in this version",
		Hint: "leave it out; cortex version says which version runs"}
}

// nearest is the candidate that name is most likely a slip of, or "": at most a third of the letters differ.
func nearest(name string, candidates []string) string {
	best, least := "", len(name)/3+1
	if len(name) > 64 { // nobody's slip, and the comparison is quadratic
		return ""
	}
	for _, c := range candidates {
		if d := distance(strings.ToLower(strings.ReplaceAll(name, "-", "_")), c); d < least {
			best, least = c, d
		}
	}
	if best == "" {
		for _, c := range candidates { // bead for bead_id, cmd is left to the list
			if len(name) >= 3 && strings.HasPrefix(c, strings.ToLower(name)) {
				return c
			}
		}
	}
	return best
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
