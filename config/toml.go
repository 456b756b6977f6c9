package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2/unstable"
)

// document is one file on its way through the parser. Decoding it with go-toml stops at the first wrong type and at
// the first syntax error; this walk over its expressions goes on, since people want all problems at once.
type document struct {
	source string
	text   []byte
	starts []int        // offset of each line
	broken map[int]bool // lines that are not UTF-8; what else is wrong with them is only a consequence

	table  []string        // the header that we are below
	lost   bool            // below a header that can't be read: whose keys these are nobody knows
	tables map[string]int  // line where each table was first written
	inline map[string]bool // and whether that closed it
	set    map[string]int  // line where each key was first set
	last   int             // line of the last expression

	layer
	problems Problems
}

// readTOML reads the text of a file into values of the keys' types, and finds everything that is wrong with it.
// source is how the problems name it.
func readTOML(source string, text []byte) (layer, Problems) {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // some editors write it, TOML has no place for it
	d := &document{
		source: source, text: text, starts: []int{0},
		broken: map[int]bool{}, tables: map[string]int{}, inline: map[string]bool{}, set: map[string]int{},
		layer: newLayer(),
	}
	for i, c := range text {
		if c == '\n' {
			d.starts = append(d.starts, i+1)
		}
	}
	d.checkUTF8()
	d.parse()
	return d.layer, d.problems
}

// checkUTF8 reports the first wrong byte of each line, and puts ASCII in the place of all, so that parsing can go on.
func (d *document) checkUTF8() {
	if utf8.Valid(d.text) {
		return
	}
	d.text = bytes.Clone(d.text)
	for i := 0; i < len(d.text); {
		r, n := utf8.DecodeRune(d.text[i:])
		if r == utf8.RuneError && n == 1 {
			if line := d.lineAt(i); !d.broken[line] {
				d.broken[line] = true
				d.problems = append(d.problems, Problem{
					Source: d.source, Line: line, Column: i - d.starts[line-1] + 1,
					What: fmt.Sprintf("not UTF-8: byte 0x%02x", d.text[i]),
				})
			}
			d.text[i] = '?'
		}
		i += n
	}
}

// lineAt is the line, from 1, that the byte at offset is in.
func (d *document) lineAt(offset int) int {
	return sort.Search(len(d.starts), func(i int) bool { return d.starts[i] > offset })
}

// line is the text of a line, from 1.
func (d *document) line(n int) []byte {
	end := len(d.text)
	if n < len(d.starts) {
		end = d.starts[n]
	}
	return d.text[d.starts[n-1]:end]
}

// parse walks the expressions; after a syntax error it goes on below it.
func (d *document) parse() {
	var p unstable.Parser
	for from, lastError := 0, -1; from < len(d.text); {
		p.Reset(d.text[from:len(d.text):len(d.text)])
		for p.NextExpression() {
			d.expression(p.Expression(), from)
		}
		broken, ok := errors.AsType[*unstable.ParserError](p.Error())
		if !ok {
			return // the end
		}
		// Highlight is cut from the text, so that the memory of both ends at the same byte.
		at := max(from, len(d.text)-cap(broken.Highlight))
		if at != lastError {
			d.syntaxError(at, broken.Message)
		}
		from = d.resume(from, at, at == lastError)
		lastError = at
	}
}

// Where an expression may begin: a header, or a bare key and what follows it.
var beginning = regexp.MustCompile(`^[ \t]*(?:\[+[ \t]*([A-Za-z0-9_-]+)|([A-Za-z0-9_-]+(?:[ \t]*\.[ \t]*[A-Za-z0-9_-]+)*)[ \t]*=)`)

var blanks = strings.NewReplacer(" ", "", "\t", "")

// syntaxError reports what can't be parsed at offset at, and takes over the table of a header that is broken.
func (d *document) syntaxError(at int, message string) {
	line := d.lineAt(at)
	problem := Problem{Source: d.source, Line: line, Column: at - d.starts[line-1] + 1}
	names := beginning.FindSubmatch(d.line(line))
	switch before := bytes.Trim(d.text[d.starts[line-1]:at], " \t"); {
	case bytes.HasSuffix(before, []byte("=")):
		message = "no value after the =; text needs quotes"
	case len(before) == 0 && names != nil && names[2] != nil:
		message = "the value above is not closed"
	}
	problem.What = "not TOML: " + printable(message)
	switch {
	case bytes.HasPrefix(bytes.TrimLeft(d.line(line), " \t"), []byte("[")):
		d.table, d.lost = nil, true
		if names != nil && slices.Contains(tables, string(names[1])) {
			d.table, d.lost = []string{string(names[1])}, false
			d.tables[string(names[1])] = line
		}
	case names != nil && !d.lost:
		problem.Key = display(append(slices.Clone(d.table), strings.Split(blanks.Replace(string(names[2])), ".")...))
	}
	if !d.broken[line] {
		d.problems = append(d.problems, problem)
	}
}

// printable is the parser's message with what a terminal would obey escaped: it quotes the file.
func printable(message string) string {
	var b strings.Builder
	for _, r := range message {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// resume is the offset where parsing goes on after the error at offset at, in a text that began at from: the next line
// with which something may begin. That may be the line of the error itself, where a value that isn't closed ran into it.
func (d *document) resume(from, at int, again bool) int {
	line := d.lineAt(at)
	if !again && line > d.lineAt(from) && line > d.last && beginning.Match(d.line(line)) {
		return d.starts[line-1]
	}
	for line++; line <= len(d.starts); line++ {
		if beginning.Match(d.line(line)) {
			return d.starts[line-1]
		}
	}
	return len(d.text)
}
