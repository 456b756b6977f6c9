package record

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// every is each byte once, in an order that is no UTF-8.
var every = func() string {
	var b strings.Builder
	for i := range 256 {
		b.WriteByte(byte(255 - i))
	}
	return b.String()
}()

func TestRawKeepsAnyBytes(t *testing.T) {
	t.Parallel()
	texts := []string{
		"", "PATH=/usr/bin", "ÄÖÜ=日本語 🙂", "\x00", "a\x00b", every, "\xff", "half a rune \xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80",
		"\ufffd", "\u2028<&>\u2029", `"\`, "{", `{"base64":"AA=="}`, "\r\n\t\x1b[0m", "X=" + strings.Repeat("\xfe", 10_000),
	}
	for i := range 256 {
		texts = append(texts, string([]byte{byte(i)}))
	}
	for _, text := range texts {
		data, err := json.Marshal(Raw(text))
		check(t, err)
		if utf8.ValidString(text) != (data[0] == '"') {
			t.Errorf("%q is written as %s", text, data)
		}
		back := Raw("old")
		check(t, json.Unmarshal(data, &back))
		if string(back) != text {
			t.Errorf("%q comes back as %q", text, back)
		}
	}
}

func TestRawRefusesWhatIsNone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`1`, `true`, `[]`, `["a"]`, `{"base64":1}`, `{"base64":"?"}`, `{"base64":"AA"}`, `"`, `{`} {
		var r Raw
		if err := json.Unmarshal([]byte(text), &r); err == nil {
			t.Errorf("%s was read as %q", text, r)
		}
	}
}

// An environment is read back as it was, in its order, from the file itself.
func TestSpecKeepsAnEnvironmentOfAnyBytes(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	env := []Raw{"B=2", "A=1", Raw("RAW=" + every[:255]), "A=again", "", "=", "日本=語"}
	check(t, d.Write(SpecFile, Spec{Format: Format, Env: env, Command: []string{"", "a\x00b", "\u2028"}}))
	var s Spec
	check(t, d.Read(SpecFile, &s))
	if !slices.Equal(s.Env, env) || !slices.Equal(s.Command, []string{"", "a\x00b", "\u2028"}) {
		t.Errorf("%+v", s)
	}
}
