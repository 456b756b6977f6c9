package api

import (
	"strings"
	"testing"
	"time"
)

func TestFormatDuration(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0:                      "0s",
		-time.Hour:             "0s",
		999 * time.Millisecond: "0s",
		12 * time.Second:       "12s",
		3*time.Minute + 45*time.Second + 900*time.Millisecond: "3m45s",
		5 * time.Minute: "5m",
		15*time.Hour + 32*time.Minute + 59*time.Second: "15h32m",
		time.Hour + 59*time.Second:                     "1h",
		2*day + 3*time.Hour + 59*time.Minute:           "2d3h",
		400 * day:                                      "400d",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("FormatDuration(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "10m": 10 * time.Minute, "1h30m": 90 * time.Minute, "0s": 0, "1.5h": 90 * time.Minute,
		"2d": 2 * day, "2d3h": 2*day + 3*time.Hour, "250ms": 250 * time.Millisecond, "1m0s": time.Minute,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "0", "30", "1.5", "-30s", "+30s", "s", "d", "dd", "1d2d", "1h1d", " 30s", "30 s", "30x", "99999999d", "d3h", "1d-3h", "1e3s", "ns", ".5s",
		"9223372036s9223372036s", "65535d2000000h", "∞", "30s\n",
	} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", text, got)
		}
	}
	_, err := ParseDuration("30")
	if err == nil || !strings.Contains(err.Error(), "30s or 30m") {
		t.Errorf("a bare number: %v, want a hint at the unit", err)
	}
}

func FuzzDuration(f *testing.F) {
	f.Add(int64(0))
	f.Add(int64(17 * time.Hour))
	f.Fuzz(func(t *testing.T, n int64) {
		d := time.Duration(n)
		text := FormatDuration(d)
		again, err := ParseDuration(text)
		if err != nil {
			if d > 65535*day { // more days than are read: 179 years
				return
			}
			t.Fatalf("%v is printed as %q, which can't be read: %v", d, text, err)
		}
		if FormatDuration(again) != text || again > max(d, 0) {
			t.Fatalf("%v is printed as %q and read as %v", d, text, again)
		}
	})
}
