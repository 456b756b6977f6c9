package api

import (
	"io"
	"unicode/utf8"
)

// plain is a reader that turns what an agent wrote to its terminal into text: without escape sequences and control
// characters, in valid UTF-8, with lines as a terminal shows them at the end. A progress bar that redraws its line with
// carriage returns is the one line that it was last. What moves between lines begins a new one: a screen is not rebuilt.
//
// The states are those of Paul Williams' parser for DEC terminals (vt100.net/emu/dec_ansi_parser), with UTF-8 in place
// of eight-bit codes, as in xterm. It keeps one line in memory, and never waits for a terminator for ever.
type plain struct {
	from io.Reader
	err  error
	in   [32 << 10]byte
	held int    // bytes at the start of in: a rune whose rest is not there yet
	out  []byte // ready to be read

	state   parseState
	torn    bool  // the last rune was a newline
	skipped int   // bytes of the present string (OSC, DCS …)
	params  []int // of the present CSI
	private bool  // it has a parameter of a kind of its own (?, >), or an intermediate: no movement

	line   []rune
	column int
}

type parseState int

const (
	ground    parseState = iota
	escape               // after ESC
	escapeMid            // after ESC and an intermediate: one more byte
	csi                  // after ESC [
	osc                  // after ESC ]: to BEL, ST or the end of the line
	str                  // after ESC P, X, ^ or _: to ST
)

const (
	maxLine   = 16 << 10 // runes; a longer one comes in pieces
	maxString = 1 << 20  // bytes of a string that is skipped; sixel images are large. Then it was none
	maxMove   = 500      // columns: no terminal is much wider, and a number must not become that many blanks
)

func newPlain(from io.Reader) *plain { return &plain{from: from} }

// Read implements io.Reader.
func (p *plain) Read(into []byte) (int, error) {
	for len(p.out) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		n, err := p.from.Read(p.in[p.held:])
		p.consume(p.in[:p.held+n], err != nil)
		if p.err = err; err != nil {
			p.flush()
		}
	}
	n := copy(into, p.out)
	p.out = p.out[n:]
	return n, nil
}

// consume takes bytes, and holds back a rune that is not complete unless they are the last.
func (p *plain) consume(data []byte, last bool) {
	p.out = p.out[:0]
	for len(data) > 0 {
		if !last && !utf8.FullRune(data) {
			break
		}
		r, size := utf8.DecodeRune(data) // what is not UTF-8 is U+FFFD, a byte at a time
		p.take(r)
		data = data[size:]
	}
	p.held = copy(p.in[:], data)
}

// Control characters.
const (
	bel = 0x07
	bs  = 0x08
	can = 0x18
	sub = 0x1a
	esc = 0x1b
	del = 0x7f
	// C1, as UTF-8.
	c1IND, c1NEL, c1RI                      = 0x84, 0x85, 0x8d
	c1DCS, c1SOS, c1CSI, c1OSC, c1PM, c1APC = 0x90, 0x98, 0x9b, 0x9d, 0x9e, 0x9f
)

// take handles one rune. What may come in any state is first; then each state has its own.
func (p *plain) take(r rune) {
	torn := p.torn
	p.torn = r == '\n'
	switch {
	case r == can || r == sub:
		p.state = ground
		return
	case r == esc:
		p.state = escape
		return
	case r >= 0x80 && r <= 0x9f:
		p.c1(r)
		return
	}
	if torn && r == '[' && p.state != str {
		p.state = ground // the line that says what was cut from the log amid a sequence
	}
	switch p.state {
	case ground:
		p.print(r)
	case escape:
		p.afterEscape(r)
	case escapeMid:
		if r < 0x20 {
			p.print(r)
		} else if r > 0x2f {
			p.state = ground
			if r > 0x7e {
				p.print(r)
			}
		}
	case csi:
		p.inCSI(r)
	case osc:
		switch {
		case r == bel:
			p.state = ground
		case r == '\n': // never part of one: the string was torn off, and the rest of the log is not its contents
			p.state = ground
			p.print(r)
		default:
			p.skip()
		}
	case str:
		p.skip()
	}
}

// c1 handles the eight-bit form of an escape.
func (p *plain) c1(r rune) {
	p.state = ground
	switch r {
	case c1IND, c1NEL, c1RI:
		p.newline()
	case c1CSI:
		p.begin(csi)
	case c1OSC:
		p.begin(osc)
	case c1DCS, c1SOS, c1PM, c1APC:
		p.begin(str)
	}
}

func (p *plain) begin(s parseState) {
	p.state, p.skipped, p.params, p.private = s, 0, p.params[:0], false
}

// skip drops one rune of a string. One that does not end was none: better a bit of rubbish than the rest of the log
// hidden.
func (p *plain) skip() {
	if p.skipped++; p.skipped > maxString {
		p.state = ground
	}
}

func (p *plain) afterEscape(r rune) {
	switch {
	case r < 0x20:
		p.print(r) // a control character within a sequence is carried out, and the sequence goes on
	case r <= 0x2f:
		p.state = escapeMid
	case r == '[':
		p.begin(csi)
	case r == ']':
		p.begin(osc)
	case r == 'P' || r == 'X' || r == '^' || r == '_':
		p.begin(str)
	case r > 0x7e:
		p.state = ground
		p.print(r)
	default:
		p.state = ground
		if r == 'D' || r == 'E' || r == 'M' { // index, next line, reverse index
			p.newline()
		}
	}
}

func (p *plain) inCSI(r rune) {
	switch {
	case r < 0x20:
		p.print(r)
	case r >= '0' && r <= '9':
		if len(p.params) == 0 {
			p.params = append(p.params, 0)
		}
		last := &p.params[len(p.params)-1]
		*last = min(*last*10+int(r-'0'), maxMove)
	case r == ';' || r == ':':
		if len(p.params) == 0 {
			p.params = append(p.params, 0)
		}
		if len(p.params) < 16 {
			p.params = append(p.params, 0)
		}
	case r <= 0x3f:
		p.private = true
	case r <= 0x7e:
		p.state = ground
		if !p.private {
			p.move(r)
		}
	case r == del: // ignored
	default: // no sequence holds this
		p.state = ground
		p.print(r)
	}
}

// move carries out those sequences that matter for a line.
func (p *plain) move(final rune) {
	n := 1
	if len(p.params) > 0 && p.params[0] > 0 {
		n = p.params[0]
	}
	switch final {
	case 'C', 'a': // forward: some programs write their blanks so
		p.column = min(p.column+n, len(p.line)+maxMove)
	case 'D': // back
		p.column = max(p.column-n, 0)
	case 'G', '`': // to a column
		p.column = min(n-1, len(p.line)+maxMove)
	case 'K': // erase in the line
		p.erase()
	case 'J': // erase in the screen; of that we have this line
		if len(p.params) == 0 || p.params[0] == 0 {
			p.erase()
		}
	case 'A', 'B', 'E', 'F', 'H', 'd', 'e', 'f': // another line
		p.newline()
	}
}

// erase is CSI K: from the cursor on, up to it, or all.
func (p *plain) erase() {
	mode := 0
	if len(p.params) > 0 {
		mode = p.params[0]
	}
	switch {
	case mode == 0 && p.column < len(p.line):
		p.line = p.line[:p.column]
	case mode == 1:
		for i := range min(p.column+1, len(p.line)) {
			p.line[i] = ' '
		}
	case mode == 2:
		p.line = p.line[:0]
	}
}

// print carries out a control character or puts a rune where the cursor is.
func (p *plain) print(r rune) {
	switch {
	case r == '\n':
		p.flush()
		p.out = append(p.out, '\n')
		return
	case r == '\v' || r == '\f':
		p.newline()
		return
	case r == '\r':
		p.column = 0
		return
	case r == bs:
		p.column = max(p.column-1, 0)
		return
	case r < 0x20 && r != '\t' || r == del:
		return
	}
	for len(p.line) < p.column {
		p.line = append(p.line, ' ')
	}
	if p.column < len(p.line) {
		p.line[p.column] = r
	} else {
		p.line = append(p.line, r)
	}
	if p.column++; len(p.line) >= maxLine {
		p.flush()
	}
}

// newline ends a line that holds something: what goes to another line never glues two texts together.
func (p *plain) newline() {
	if len(p.line) > 0 {
		p.flush()
		p.out = append(p.out, '\n')
	}
	p.column = 0
}

// flush puts the line out, with nothing after it.
func (p *plain) flush() {
	for _, r := range p.line {
		p.out = utf8.AppendRune(p.out, r)
	}
	p.line, p.column = p.line[:0], 0
}
