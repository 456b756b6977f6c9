package config

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// parseDuration reads what time.ParseDuration reads, and days (of 24 hours) before that: "36h", "1d12h", "0.5d". The
// error is a bool since the caller names the value and what it should be.
func parseDuration(s string) (time.Duration, bool) {
	days, rest, hasDays := strings.Cut(s, "d")
	if !hasDays {
		d, err := time.ParseDuration(s)
		return d, err == nil
	}
	n, err := strconv.ParseFloat(days, 64)
	if err != nil || strings.ContainsAny(days, "+-eExXpPnN_") { // no sign, no 1e3, no 0x1p4, no Inf, no NaN
		return 0, false
	}
	if n > float64(math.MaxInt64/int64(24*time.Hour)) {
		return 0, false
	}
	d := time.Duration(n * float64(24*time.Hour))
	if rest == "" {
		return d, true
	}
	more, err := time.ParseDuration(rest)
	if err != nil || strings.ContainsAny(rest, "+-") || d > math.MaxInt64-more {
		return 0, false
	}
	return d + more, true
}

// units of a size in lower case: powers of 1000 (SI) and of 1024 (IEC 80000-13).
var units = map[string]float64{
	"": 1, "b": 1,
	"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "pb": 1e15,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "pib": 1 << 50,
}

// parseSize reads a number and a unit, "64MiB", "1.5 GB", "4096", into bytes. Case of the unit does not matter.
func parseSize(s string) (int64, bool) {
	end := strings.LastIndexAny(s, "0123456789.") + 1
	digits, unit := s[:end], strings.ToLower(strings.TrimLeft(s[end:], " "))
	factor, ok := units[unit]
	if !ok {
		return 0, false
	}
	if n, err := strconv.ParseUint(digits, 10, 63); err == nil && factor == 1 {
		return int64(n), true // exact beyond the 53 bits of a float
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || strings.Trim(digits, "0123456789.") != "" || n*factor >= math.MaxInt64 {
		return 0, false
	}
	return int64(n * factor), true
}
