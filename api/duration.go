package api

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// FormatDuration writes d by its two largest units, rounded down: 12s, 3m45s, 15h32m, 2d3h. A second unit of zero is
// left out (5m, 2d); below a second it is 0s, and what is negative (a clock that was set back) as well.
func FormatDuration(d time.Duration) string {
	units := []struct {
		size time.Duration
		name string
	}{{day, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}}
	for i, u := range units {
		if d < u.size {
			continue
		}
		text := strconv.FormatInt(int64(d/u.size), 10) + u.name
		if i+1 < len(units) {
			if rest := d % u.size / units[i+1].size; rest > 0 {
				text += strconv.FormatInt(int64(rest), 10) + units[i+1].name
			}
		}
		return text
	}
	return "0s"
}

// ParseDuration reads a duration as people write them and as FormatDuration prints them: 30s, 10m, 1h30m, 2d3h. A bare
// number is refused, since nobody can know its unit. The error is a phrase for people ("want …, got …").
func ParseDuration(text string) (time.Duration, error) {
	bad := func() error {
		if _, err := strconv.ParseFloat(text, 64); err == nil {
			return fmt.Errorf("want a duration with its unit such as %[1]ss or %[1]sm, got %[1]q", clip(text))
		}
		return fmt.Errorf("want a duration such as 30s, 10m or 1h30m, got %q", clip(text))
	}
	var days time.Duration
	rest := text
	if n, after, ok := strings.Cut(text, "d"); ok {
		count, err := strconv.ParseUint(n, 10, 16) // 65535 days are 179 years: below what a Duration holds
		if err != nil {
			return 0, bad()
		}
		if days, rest = time.Duration(count)*day, after; rest == "" {
			return days, nil
		}
	}
	if rest == "" || rest[0] < '0' || rest[0] > '9' || rest == "0" { // no sign, and "0" has no unit either
		return 0, bad()
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || days+d < days {
		return 0, bad()
	}
	return days + d, nil
}

// clip shortens what a message quotes.
func clip(text string) string {
	const most = 80
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
