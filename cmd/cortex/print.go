package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"cortex/api"
)

// printable is text that other people wrote, fit for a terminal: what is no printable character, an escape sequence
// or a change of writing direction among them, is shown as its Go escape.
func printable(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1: // a byte that is not UTF-8
			fmt.Fprintf(&b, `\x%02x`, text[0])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
		text = text[size:]
	}
	return b.String()
}

func quoted(text string) string { return `"` + printable(text) + `"` }

// word is an optional word of an answer.
func word(w *string) string {
	if w == nil || *w == "" {
		return "-"
	}
	return printable(*w)
}

// when is an optional time of an answer.
func when(t *api.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// show asks the daemon, and prints the answer as it came for -o json, else as print does.
func (c *cli) show(ctx context.Context, path string, query url.Values, into any, print func() error) error {
	daemon, err := c.connect()
	if err != nil {
		return err
	}
	answer, err := daemon.Get(ctx, path, query, into)
	if err != nil {
		return err
	}
	if c.format == "json" {
		return c.raw(answer)
	}
	return print()
}

// raw prints the daemon's answer as it came, for -o json.
func (c *cli) raw(body []byte) error {
	_, err := c.out.Write(append(bytes.TrimSpace(body), '\n'))
	return err
}

// json prints an answer of this program's own, for -o json.
func (c *cli) json(v any) error {
	answer, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.raw(answer)
}

// table prints rows in columns; the first is the heading. Cells are printable already.
func (c *cli) table(rows [][]string) error {
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t")) // errors are kept for Flush
	}
	return w.Flush()
}

// number reads a dispatch's number.
func number(arg string) (int64, error) {
	id, err := strconv.ParseInt(arg, 10, 64)
	if err != nil || id < 1 {
		return 0, usage("a dispatch has a number, and %s is none (cortex list shows them)", quoted(arg))
	}
	return id, nil
}

// outcome says in a few words how a dispatch stands.
func outcome(d api.Dispatch) string {
	switch {
	case d.Status == "running" && d.FrozenSince != nil:
		return "frozen"
	case d.Status == "running" && d.Stage != nil:
		return word(d.Stage)
	case d.FailureCategory == nil:
		return "-"
	case d.ExitCode != nil && *d.FailureCategory == "exit_nonzero":
		return fmt.Sprintf("exit %d", *d.ExitCode)
	case d.Signal != nil:
		return fmt.Sprintf("%s, signal %d", word(d.FailureCategory), *d.Signal)
	}
	return word(d.FailureCategory)
}

// runtime is how long a dispatch ran, or has run so far.
func runtime(d api.Dispatch, now time.Time) string {
	switch {
	case d.DurationS != nil:
		return api.FormatDuration(time.Duration(*d.DurationS * float64(time.Second)))
	case d.Status == "running" && d.DispatchedAt != nil:
		return api.FormatDuration(now.Sub(d.DispatchedAt.Time))
	}
	return "-"
}
