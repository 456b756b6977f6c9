package runner

import (
	"strconv"
	"strings"
)

// nameMax is how much of a project's and of a bead's name goes into a session's name, in characters.
const nameMax = 40

// SessionName is the name of a dispatch's tmux session: ctx-<project>-<bead>-<id>, lower case, anything but a-z0-9_-
// replaced by "-". It ends in the id, so that two dispatches never want the same name; but ctx-p-b-1 is a prefix of
// ctx-p-b-12, which is why tmux is never asked for a session by a bare name.
func SessionName(project, bead string, id int64) string {
	return "ctx-" + legal(project) + "-" + legal(bead) + "-" + strconv.FormatInt(id, 10)
}

func legal(name string) string {
	runes := []rune(name)
	if len(runes) > nameMax {
		runes = runes[:nameMax]
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + ('a' - 'A')
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_', r == '-':
			return r
		}
		return '-'
	}, string(runes))
}
