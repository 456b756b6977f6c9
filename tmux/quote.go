package tmux

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// sequence writes commands as one line for tmux's parser. tmux runs them without anything in between, but for hooks, and
// drops the rest where one fails.
func sequence(commands ...[]string) string {
	var b strings.Builder
	for i, words := range commands {
		if i > 0 {
			b.WriteString(" ; ")
		}
		for k, w := range words {
			if k > 0 {
				b.WriteByte(' ')
			}
			quote(&b, w)
		}
	}
	b.WriteByte('\n')
	return b.String()
}

// quote writes one word so that tmux's parser gives it back as it was (tmux(1), "PARSING SYNTAX"): in double quotes, with
// all but plain characters as three octal digits: \ " $ and ~ mean something there, and a newline would end the line.
// The word must have no NUL byte.
func quote(b *strings.Builder, word string) {
	b.WriteByte('"')
	for i := range len(word) {
		if c := word[i]; plain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(b, `\%03o`, c)
		}
	}
	b.WriteByte('"')
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(" -_=+/.,:@#{}&|!?*()[]<>^%", c) >= 0
}

// optionValue makes any string fit for a user option that is read back in a list of fields between colons, a session a
// line: colons, control characters and what is not UTF-8 become %XX. A usual path stays as it is, so that people can read it.
func optionValue(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, "%%%02X", s[i])
		case r < ' ' || r == 0x7f || r == ':' || r == '%':
			fmt.Fprintf(&b, "%%%02X", r)
		case r >= 0x80 && r < 0xa0: // C1 controls: tmux prints them as something else
			fmt.Fprintf(&b, "%%%02X%%%02X", s[i], s[i+1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// fromOption undoes optionValue. What somebody else wrote and is not of that form stays as it is.
func fromOption(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
