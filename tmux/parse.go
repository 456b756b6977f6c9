package tmux

import "strings"

// The control protocol (tmux(1), "CONTROL MODE"): every command is answered by a block from "%begin time number flags" to
// "%end" or "%error" with the same three words; what begins with % outside of a block is a notification. Inside of a block
// every line is content, also one that looks like a notification. Flags is 1 for the answer to a command that came over
// the connection, 0 for the command that opened it and for hooks.

type eventKind int

const (
	eventNone         eventKind = iota // the line is a part of a block that has not ended
	eventReply                         // a block has ended
	eventNotification                  // %name and what follows it
	eventExit                          // %exit: the client is about to end
	eventText                          // a message outside of any block
)

// event is what one line of the protocol completes.
type event struct {
	kind  eventKind
	reply reply
	ours  bool   // of a reply: it answers a command that came over the connection
	text  string // of the others: the line, for eventExit the reason
}

// reply is the answer to one command.
type reply struct {
	failed bool // %error: lines say why
	lines  []string
}

func (r reply) text() string { return strings.Join(r.lines, "\n") }

// parser takes the protocol apart, line by line. Its zero value is ready.
type parser struct {
	guard string // "time number flags" of the open block; empty outside of one
	lines []string
}

// line takes one line without its newline.
func (p *parser) line(s string) event {
	if p.guard != "" {
		return p.content(s)
	}
	word, rest, _ := strings.Cut(s, " ")
	switch {
	case word == "%begin" && isGuard(rest):
		p.guard = rest
		return event{}
	case word == "%exit":
		return event{kind: eventExit, text: rest}
	case strings.HasPrefix(s, "%"):
		return event{kind: eventNotification, text: s}
	}
	return event{kind: eventText, text: s}
}

func (p *parser) content(s string) event {
	word, rest, _ := strings.Cut(s, " ")
	if rest != p.guard || (word != "%end" && word != "%error") {
		p.lines = append(p.lines, s)
		return event{}
	}
	e := event{
		kind:  eventReply,
		reply: reply{failed: word == "%error", lines: p.lines},
		ours:  guardFlags(rest)&1 != 0,
	}
	*p = parser{}
	return e
}

// isGuard reports whether s is three decimal numbers, which is what follows %begin.
func isGuard(s string) bool {
	fields := strings.Split(s, " ")
	if len(fields) != 3 {
		return false
	}
	for _, f := range fields {
		if f == "" || strings.Trim(f, "0123456789") != "" {
			return false
		}
	}
	return true
}

// guardFlags returns the last digit of a guard: only the lowest bit has a meaning.
func guardFlags(guard string) int { return int(guard[len(guard)-1] - '0') }
