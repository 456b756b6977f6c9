package api

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"
)

func plainText(t testing.TB, r io.Reader) string {
	t.Helper()
	text, err := io.ReadAll(newPlain(r))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestPlain(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, in, want string }{
		{"empty", "", ""},
		{"text", "a\nb\n", "a\nb\n"},
		{"no newline at the end", "a\nb", "a\nb"},
		{"tabs and blank lines", "a\tb\r\n\r\nc\n", "a\tb\n\nc\n"},
		{"colours", "\x1b[1;31mred\x1b[0m and \x1b[38;2;1;2;3mrgb\x1b[38:5:1mx\x1b[m\r\n", "red and rgbx\n"},
		{"a line that begins with one", "a\n\x1b[31mred\x1b[0m\n", "a\nred\n"},
		{"private modes", "\x1b[?25lhidden\x1b[?2004h\x1b[>1u\x1b[?1049l\n", "hidden\n"},
		{"title, BEL", "\x1b]0;title\x07text\n", "text\n"},
		{"title, ST", "\x1b]2;title\x1b\\text\n", "text\n"},
		{"link", "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n", "link\n"},
		{"clipboard", "\x1b]52;c;aGVsbG8=\x07ok\n", "ok\n"},
		{"DCS, SOS, PM, APC", "\x1bPq#0;2\nsixel\x1b\\a\x1bXsos\x1b\\b\x1b^pm\x1b\\c\x1b_apc\x1b\\d\n", "abcd\n"},
		{"charset, keypad, reset", "\x1b(B\x1b)0\x1b=\x1b>\x1b7\x1b8\x1bcx\n", "x\n"},
		{"C1 as UTF-8", "a\u009b31mb\u009d0;t\u009cc\u0090d\u009ce\u0085f\n", "abce\nf\n"},
		{"C0", "a\x00b\x01c\x05d\x0ee\x7ff\x07\n", "abcdef\n"},
		{"UTF-8", "äöü 日本語 🚀 e\u0301\n", "äöü 日本語 🚀 e\u0301\n"},
		{"not UTF-8", "a\xffb\xc3\n\x80c\xf0\x9f\x9a", "a\uFFFDb\uFFFD\n\uFFFDc\uFFFD\uFFFD\uFFFD"},
		{"progress bar", " 10%\r 20%\r100%\n", "100%\n"},
		{"erase and redraw", "downloading 50%\r\x1b[2Kdone\n", "done\n"},
		{"redraw and erase the rest", "downloading\rdone\x1b[K\n", "done\n"},
		{"redraw and erase below", "downloading\rdone\x1b[J\n", "done\n"},
		{"a shorter text does not erase", "abc\rX\n", "Xbc\n"},
		{"backspace", "abd\bc\n", "abc\n"},
		{"backspace at the start", "\b\ba\n", "a\n"},
		{"spinner", "⠋ work\r⠙ work\r✔ work\n", "✔ work\n"},
		{"CR CR LF", "a\r\r\nb\r\n", "a\nb\n"},
		{"blanks by cursor forward", "one\x1b[1Ctwo\x1b[3Cthree\n", "one two   three\n"},
		{"column", "ab\x1b[5Gc\x1b[1GX\n", "Xb  c\n"},
		{"back", "abc\x1b[2DX\n", "aXc\n"},
		{"no endless blanks", "\x1b[999999999Cx\n", strings.Repeat(" ", maxMove) + "x\n"},
		{"moves to other lines", "a\x1b[5;1Hb\x1b[1Ac\x1b[Hd\n", "a\nb\nc\nd\n"},
		{"cleared screen", "\x1b[H\x1b[2Jtext\n", "text\n"},
		{"newline within a sequence", "a\x1b[3\n1mb\n", "a\nb\n"},
		{"cancelled sequence", "a\x1b[3\x18b\x1b]0;t\x1ac\n", "abc\n"},
		{"escape within a sequence", "a\x1b[31\x1b[0mb\n", "ab\n"},
		{"text where a final should be", "a\x1b[31äb\n", "aäb\n"},
		{"torn title", "a\x1b]0;never ends\nb\n", "a\nb\n"},
		{"ends in a sequence", "a\x1b[3", "a"},
		{"ends in an escape", "a\x1b", "a"},
		{"the mark of a cut", "\x1b[3\r\n[cortex: 17 bytes cut]\r\nb\n", "\n[cortex: 17 bytes cut]\nb\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := plainText(t, strings.NewReader(c.in)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if got := plainText(t, iotest.OneByteReader(strings.NewReader(c.in))); got != c.want {
				t.Errorf("a byte at a time: got %q, want %q", got, c.want)
			}
		})
	}
}

// TestPlainTornString: a string that never ends does not hide the rest of the log.
func TestPlainTornString(t *testing.T) {
	t.Parallel()
	got := plainText(t, strings.NewReader("a\x1bP"+strings.Repeat("x", maxString+10)+"\nthe rest\n"))
	if !strings.HasSuffix(got, "\nthe rest\n") || len(got) > 100 {
		t.Errorf("got %d bytes", len(got))
	}
}

// TestPlainLongLine: a line without end is passed on in pieces, and nothing of it is lost.
func TestPlainLongLine(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 3*maxLine+5)
	if got := plainText(t, strings.NewReader(long)); got != long {
		t.Errorf("got %d bytes, want %d", len(got), len(long))
	}
}

func TestPlainReadError(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	got, err := io.ReadAll(newPlain(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken))))
	if string(got) != "abc" || !errors.Is(err, broken) {
		t.Errorf("got %q, %v", got, err)
	}
}

func FuzzPlain(f *testing.F) {
	for _, seed := range []string{"a\r\nb", "\x1b[1;31mx\x1b]0;t\x07", "\xf0\x9f\x9a\x80\u009b5C", "\x1bP\x1b\\\b\r\x1b[K"} {
		f.Add([]byte(seed), 3)
	}
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		whole := plainText(t, bytes.NewReader(in))
		pieces := plainText(t, &chunks{in, size%7 + 1})
		if whole != pieces {
			t.Fatalf("whole %q, in pieces %q", whole, pieces)
		}
		if !utf8.ValidString(whole) {
			t.Fatalf("%q is not UTF-8", whole)
		}
		if i := strings.IndexFunc(whole, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }); i >= 0 {
			t.Fatalf("%q holds a control character", whole)
		}
	})
}

// chunks reads a few bytes at a time.
type chunks struct {
	rest []byte
	size int
}

func (c *chunks) Read(into []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(into[:min(max(c.size, 1), len(into))], c.rest)
	c.rest = c.rest[n:]
	return n, nil
}
