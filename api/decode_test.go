package api

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"cortex"
	"cortex/sched"
)

// decodeInto decodes a body of POST /dispatches.
func decodeInto(body string) (submission, error) {
	sub := submission{project: "default", priority: cortex.PriorityDefault}
	r := httptest.NewRequest("POST", "/dispatches", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded") // curl -d
	err := decodeBody(httptest.NewRecorder(), r, sub.fields())
	return sub, err
}

func TestDecode(t *testing.T) {
	t.Parallel()
	sub, err := decodeInto(` {"command": ["printf", "%s\n", "a b", "$(x)", "äö\ud83d\ude80", "#{x};~", "\\ud800"], "bead_id": "b.1",
		"project": null, "env": {"A": "1=2", "Ü": ""}, "priority": 0, "timeout": "1h30m", "max_retries": 0, "prompt": null}
	`)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"printf", "%s\n", "a b", "$(x)", "äö🚀", "#{x};~", `\ud800`}
	if strings.Join(sub.command, "|") != strings.Join(want, "|") || sub.bead != "b.1" || sub.project != "default" ||
		len(sub.env) != 2 || sub.env["A"] != "1=2" || sub.priority != 0 || sub.timeout != 90*time.Minute {
		t.Errorf("got %+v", sub)
	}
	for _, body := range []string{"", " \n", "{}"} {
		if _, err := decodeInto(body); err != nil {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, body, reason, message, hint string }{
		{"not JSON", "command=ls", "bad_json", "line 1, column 1", ""},
		{"a wrong byte in the third line", "{\n\"a\": 1,\n  oops}", "bad_json", "line 3, column 3", ""},
		{"columns are characters", `{"ä": ü}`, "bad_json", "line 1, column 7", ""},
		{"a wrong last byte", `{"a":1]`, "bad_json", "line 1, column 7", ""},
		{"not complete", `{"a":1`, "bad_json", "line 1, column 7: unexpected end", ""},
		{"trailing data", `{} {}`, "bad_json", "line 1, column 4", ""},
		{"a list", `["ls"]`, "bad_json", "not a JSON object but a list", ""},
		{"null", `null`, "bad_json", "but null", ""},
		{"a number", `17`, "bad_json", "but a number", ""},
		{"twice", `{"bead_id":"a","bead_id":"b"}`, "bad_json", `"bead_id" is given twice`, ""},
		{"twice, within", `{"env":{"A":"1","A":"2"}}`, "bad_json", `"A" is given twice`, ""},
		{"not UTF-8", "{\"bead_id\":\"\xff\"}", "bad_json", "line 1, column 13: not UTF-8", ""},
		{"half a surrogate", `{"bead_id":"\ud800x"}`, "bad_json", "column 13: half of a surrogate", ""},
		{"low surrogate alone", `{"bead_id":"\udc00"}`, "bad_json", "half of a surrogate", ""},
		{"misspelt", `{"comand":["ls"]}`, "unknown_field", `"comand"`, `did you mean "command"?`},
		{"with a dash", `{"bead-id":"x"}`, "unknown_field", `"bead-id"`, `did you mean "bead_id"?`},
		{"begun", `{"bead":"x"}`, "unknown_field", `"bead"`, `did you mean "bead_id"?`},
		{"other", `{"xyzzy":"x"}`, "unknown_field", `"xyzzy"`, `known fields: after, agent, bead_id`},
		{"upper case", `{"Bead_ID":"x"}`, "unknown_field", `"Bead_ID"`, `did you mean "bead_id"?`},
		{"command is a string", `{"command":"ls -l"}`, "bad_value", "command: want a list of strings, got a string", ""},
		{"an argument is a number", `{"command":["ls",1]}`, "bad_value", "command[1]: want a string, got a number", ""},
		{"an argument is null", `{"command":[null]}`, "bad_value", "command[0]: want a string, got null", ""},
		{"NUL in an argument", `{"command":["a\u0000b"]}`, "bad_value", "command[0]: a NUL", ""},
		{"NUL in workdir", `{"workdir":"/\u0000"}`, "bad_value", "workdir: a NUL", ""},
		{"NUL in env", `{"env":{"A":"\u0000"}}`, "bad_value", "env.A: a NUL", ""},
		{"env is a list", `{"env":["A=1"]}`, "bad_value", "env: want an object, got a list", ""},
		{"env of a number", `{"env":{"A":1}}`, "bad_value", "env.A: want a string, got a number", ""},
		{"priority is a string", `{"priority":"1"}`, "bad_value", "priority: want a whole number from 0 to 4, got a string", ""},
		{"priority is too large", `{"priority":5}`, "bad_value", "priority: want a whole number from 0 to 4, got 5", ""},
		{"priority is broken", `{"priority":1.5}`, "bad_value", "got 1.5", ""},
		{"priority is huge", `{"priority":1e400}`, "bad_value", "priority: want", ""},
		{"timeout is a number", `{"timeout":30}`, "bad_value", "timeout: want a duration as a string, got a number", `"30s"`},
		{"timeout has no unit", `{"timeout":"30"}`, "bad_value", "such as 30s or 30m", ""},
		{"timeout is nothing", `{"timeout":"0s"}`, "bad_value", "timeout: want a duration from", ""},
		{"timeout is negative", `{"timeout":"-1m"}`, "bad_value", "timeout: want a duration", ""},
		{"bead is long", `{"bead_id":"` + strings.Repeat("x", 257) + `"}`, "bad_value", "bead_id: want at most 256 bytes, got 257", ""},
		{"bead has an escape", `{"bead_id":"\u001b[2J"}`, "bad_value", "bead_id: control characters", ""},
		{"bead has a newline", `{"bead_id":"a\nb"}`, "bad_value", "bead_id: control characters", ""},
		{"bead has a C1", `{"bead_id":"\u009b2J"}`, "bad_value", "bead_id: control characters", ""},
		{"prompt", `{"prompt":"do it"}`, "not_available", "The field prompt", ""},
		{"not_before", `{"not_before":"tomorrow"}`, "bad_value", "not_before: want a time such as", ""},
		{"after", `{"after":[1]}`, "not_available", "after", ""},
		{"idle_timeout", `{"idle_timeout":"1m"}`, "not_available", "idle_timeout", ""},
		{"max_retries", `{"max_retries":1}`, "not_available", "max_retries", ""},
		{"deep", strings.Repeat("[", 100_000), "bad_json", "depth", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := decodeInto(c.body)
			var p *cortex.Error
			if !errors.As(err, &p) {
				t.Fatalf("got %v", err)
			}
			if string(p.Reason) != c.reason || !strings.Contains(p.Message, c.message) || !strings.Contains(p.Hint, c.hint) {
				t.Errorf("got %s: %s (%s), want %s: …%s… (…%s…)", p.Reason, p.Message, p.Hint, c.reason, c.message, c.hint)
			}
		})
	}
}

func TestBodyTooLarge(t *testing.T) {
	t.Parallel()
	for _, announced := range []bool{true, false} {
		r := httptest.NewRequest("POST", "/dispatches", strings.NewReader("{"+strings.Repeat(" ", maxBody)))
		if !announced {
			r.ContentLength = -1
		}
		var p *cortex.Error
		if _, err := readBody(httptest.NewRecorder(), r); !errors.As(err, &p) || p.Reason != cortex.ReasonTooLarge {
			t.Errorf("announced %v: got %v", announced, err)
		}
	}
}

// FuzzDecode: whatever comes, the error is one for people, of a size that can be read, with a hint; what is taken is what any
// other reader of JSON takes it for, of each name one; and what passes all checks can be written down and run.
func FuzzDecode(f *testing.F) {
	f.Add(`{"command":["a"],"env":{"A":"b"},"timeout":"1m"}`)
	f.Add(`{"a":"\ud83d\ude80\\`)
	f.Add("{\"\xff")
	f.Fuzz(func(t *testing.T, body string) {
		var order sched.PauseOrder
		for name, known := range map[string]fields{
			"pause": pauseFields(&order), "cancel": new(choice).fields(new(graceField)),
		} {
			r := httptest.NewRequest("POST", "/", strings.NewReader(body))
			if err := decodeBody(httptest.NewRecorder(), r, known); !forPeople(err) {
				t.Errorf("%s: %#v", name, err)
			}
		}
		sub, err := decodeInto(body)
		if !forPeople(err) {
			t.Fatalf("%#v", err)
		}
		for _, arg := range sub.command {
			if strings.ContainsRune(arg, 0) {
				t.Fatalf("%q holds a NUL", arg)
			}
		}
		if err != nil || strings.TrimSpace(body) == "" {
			return
		}
		asOthers(t, body, sub)
		spec, err := testServer(t).specOf(sub)
		if !forPeople(err) {
			t.Fatalf("%#v", err)
		}
		if err == nil && (spec.Command[0] == "" || spec.Bead == "" || spec.TimeoutMS < 0 || !filepath.IsAbs(spec.Workdir)) {
			t.Errorf("%+v", spec)
		}
	})
}

// forPeople reports whether an error can be shown: none, or one with a reason, a hint and a message that is no copy of the body.
func forPeople(err error) bool {
	var p *cortex.Error
	return err == nil || errors.As(err, &p) && p.Reason != "" && p.Hint != "" && p.Message != "" &&
		len(p.Message) < 1000 && len(p.Hint) < 1000 && utf8.ValidString(p.Message) && utf8.ValidString(p.Hint)
}

// asOthers compares what was decoded with what encoding/json makes of it.
func asOthers(t *testing.T, body string, sub submission) {
	t.Helper()
	var other struct {
		Command  []string          `json:"command"`
		Bead     string            `json:"bead_id"`
		Env      map[string]string `json:"env"`
		Workdir  string            `json:"workdir"`
		Priority *float64          `json:"priority"`
	}
	var names map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal([]byte(body), &other), json.Unmarshal([]byte(body), &names)); err != nil {
		t.Fatal(err)
	}
	priority := float64(cortex.PriorityDefault)
	if other.Priority != nil {
		priority = *other.Priority
	}
	if !slices.Equal(sub.command, other.Command) || sub.bead != other.Bead || !maps.Equal(sub.env, other.Env) ||
		sub.workdir != other.Workdir || float64(sub.priority) != priority {
		t.Errorf("%q is %+v, not %+v", body, sub, other)
	}
	for name := range names {
		if _, ok := sub.fields()[name]; !ok {
			t.Errorf("%q is not known", name)
		}
	}
}
