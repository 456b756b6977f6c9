package config

import (
	"math"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"0s": 0, "10s": 10 * time.Second, "1.5h": 90 * time.Minute, "-1s": -time.Second, "250ms": 250 * time.Millisecond,
		"1d": 24 * time.Hour, "1d12h": 36 * time.Hour, "0.5d": 12 * time.Hour, "106751d": 106751 * 24 * time.Hour,
	} {
		if d, ok := parseDuration(text); !ok || d != want {
			t.Errorf("%q: %v %v, want %v", text, d, ok, want)
		}
	}
	for _, text := range []string{"", "10", "s", "d", "-1d", "1e1d", "nand", "infd", "0x1p3d", "1_0d", "1d-1h", "1d2d", "1h1d",
		"1d5", "106752d", "106751d24h", "9999999999999999999h", "1D", "1 d", " 1s"} {
		if d, ok := parseDuration(text); ok {
			t.Errorf("%q was taken for %v", text, d)
		}
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0": 0, "4096": 4096, "1B": 1, "64MiB": 64 << 20, "64MB": 64e6, "64 mib": 64 << 20, "1.5GiB": 3 << 29, "1TiB": 1 << 40,
		"2PiB": 2 << 50, "3kb": 3000, "9223372036854775807": math.MaxInt64, "0.5KiB": 512,
	} {
		if n, ok := parseSize(text); !ok || n != want {
			t.Errorf("%q: %d %v, want %d", text, n, ok, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "+1", "64M", "64Mi", "1e5", "1.2.3", ".", "0x10", "1_000", " 64MiB", "64MiB ",
		"9223372036854775808", "8192PiB", "64MiB64", "Inf", "NaNB"} {
		if n, ok := parseSize(text); ok {
			t.Errorf("%q was taken for %d", text, n)
		}
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	for text, loopback := range map[string]bool{
		"127.0.0.1:8900": true, "127.1.2.3:0": true, "localhost:65535": true, "LocalHost:1": true, "[::1]:8900": true,
		"[::ffff:127.0.0.1]:1": true, "0.0.0.0:8900": false, ":8900": false, "[::]:8900": false, "example.com:8900": false,
		"10.0.0.1:8900": false, "[fe80::1%eth0]:8900": false, "localhost.example.com:1": false,
	} {
		if !isListen(text) || isLoopback(text) != loopback {
			t.Errorf("%q: taken %v, loopback %v", text, isListen(text), isLoopback(text))
		}
	}
	for _, text := range []string{"", ":", "8900", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:+1",
		"127.0.0.1:http", "::1:8900", "[::1]", "[::1]8900", "[::1:8900", "[127.0.0.1]:8900", "[x]:1", "a b:1", "http://a:1", "a.:1"} {
		if isListen(text) {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestAllowedHost(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"a", "a:1", "localhost:9000", "cortex.example.com", "10.0.0.1:80", "[::1]", "[::1]:65535", "a_b-c.d"} {
		if !isHost(text) {
			t.Errorf("%q was refused", text)
		}
	}
	for _, text := range []string{"", ":1", "a:", "a:0", "a:65536", "http://a", "a/b", "*", "*.a", "a.", ".a", "a..b", "-a", "::1",
		"[::1]:", "[::1]x", "a b", "a@b", "a:1:2"} {
		if isHost(text) {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestProblemsAreSorted(t *testing.T) {
	t.Parallel()
	ps := Problems{
		{Source: environment, Key: "B"}, {Source: "f", Line: 2, Column: 3}, {Source: environment, Key: "A"},
		{Source: "f", Line: 2}, {Source: "f", Line: 1}, {Source: environment, Key: "C"},
	}
	ps.sort()
	if got, want := ps.Error(), "f:1: \nf:2: \nf:2:3: \nenvironment: B: \nenvironment: A: \nenvironment: C: "; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDistance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"abc", "", 3}, {"rows", "rows", 0}, {"Max-Rows", "max_rows", 0}, {"rosw", "rows", 1}, {"row", "rows", 1},
		{"cows", "rows", 1}, {"kitten", "sitting", 3},
	} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q, %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
