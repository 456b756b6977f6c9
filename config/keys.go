package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// kind is what a key's value looks like in the file; keys of one kind are read alike.
type kind int

const (
	text     kind = iota // a string; read as string
	flag                 // true or false; bool
	number               // a whole number; int
	list                 // a list of strings; []string
	duration             // a string with units, "1d12h"; time.Duration
	size                 // a string with a unit, "64MiB", or bytes; int64
	floor                // a size that isn't 0, or "auto", which is 0; int64
)

// key is one setting.
type key struct {
	table, name string
	kind        kind
	want        string         // completes "must be"
	ok          func(any) bool // whether a value of the right type may be; of each entry where kind is list
}

// keys is every setting there is, table by table in the order of the example file.
var keys = []key{
	{"api", "listen", text, "HOST:PORT with a port from 0 to 65535", isListen},
	{"api", "require_token", flag, "true or false", always},
	{"api", "allowed_hosts", list, "a list of host names or addresses, each with or without :PORT", isHost},
	{"tmux", "binary", text, `an absolute path, or "" for the tmux in PATH`, isPath(4095)},
	{"tmux", "socket", text, `an absolute path of at most 107 bytes, or "" for the default server`, isPath(maxSocketPath)},
	{"runner", "binary", text, `an absolute path, or "" for the one beside cortex`, isPath(4095)},
	{"runner", "grace", duration, `a duration like "10s", from "0s" to "1h"`, within[time.Duration](0, time.Hour)},
	{"runner", "output_max", size, `a size like "64MiB", from "4KiB" to "1TiB"`, within[int64](4<<10, 1<<40)},
	{"runner", "cgroup", flag, "true or false", always},
	{"runner", "columns", number, "a whole number from 20 to 1000", within(20, 1000)},
	{"runner", "rows", number, "a whole number from 5 to 1000", within(5, 1000)},
	{"disk", "floor", floor, `"auto", or a size like "256MiB" from "1B" to "1PiB"`, within[int64](0, 1<<50)},
	{"log", "level", text, `"debug", "info", "warn" or "error"`, oneOf("debug", "info", "warn", "error")},
	{"log", "format", text, `"text" or "json"`, oneOf("text", "json")},
	{"projects", "max_concurrent", number, "a whole number from 0 (no bound of its own) to 10000", within(0, 10000)},
	{"projects", "max_starts_per_minute", number, "a whole number from 0 (no bound) to 10000", within(0, 10000)},
	{"agents", "max_concurrent", number, "a whole number from 0 (no bound of its own) to 10000", within(0, 10000)},
	{"agents", "max_starts_per_minute", number, "a whole number from 0 (no bound) to 10000", within(0, 10000)},
	{"providers", "max_concurrent", number, "a whole number from 0 (no bound of its own) to 10000", within(0, 10000)},
	{"providers", "max_starts_per_minute", number, "a whole number from 0 (no bound) to 10000", within(0, 10000)},
	{"scheduler", "max_concurrent_dispatches", number, "a whole number from 1 to 10000", within(1, 10000)},
	{"scheduler", "max_per_project", number, "a whole number from 0 (no bound) to 10000", within(0, 10000)},
	{"scheduler", "max_per_agent", number, "a whole number from 0 (no bound) to 10000", within(0, 10000)},
	{"scheduler", "max_per_provider", number, "a whole number from 0 (no bound) to 10000", within(0, 10000)},
	{"scheduler", "max_starts_per_minute", number, "a whole number from 0 (no bound) to 10000", within(0, 10000)},
	{"scheduler", "ageing", duration, `a duration like "24h", from "0s" (none) to "365d"`, within[time.Duration](0, 365*24*time.Hour)},
	{"scheduler", "min_memory", size, `a size like "2GiB", from "0B" (no bound) to "1PiB"`, within[int64](0, 1<<50)},
	{"scheduler", "max_load", number, "a percentage from 0 (no bound) to 10000", within(0, 10000)},
	{"scheduler", "paused_warning", duration, `a duration like "4h", from "0s" to "365d"`, within[time.Duration](0, 365*24*time.Hour)},
}

// tables is the name of each table, in the order of keys.
var tables = func() (names []string) {
	for _, k := range keys {
		if !slices.Contains(names, k.table) {
			names = append(names, k.table)
		}
	}
	return names
}()

// lookup finds the key of that name in that table.
func lookup(table, name string) (key, bool) {
	i := slices.IndexFunc(keys, func(k key) bool { return k.table == table && k.name == name })
	if i < 0 {
		return key{}, false
	}
	return keys[i], true
}

// path is table.key, table.NAME.key in a family.
func (k key) path() string {
	if isFamily(k.table) {
		return k.table + ".NAME." + k.name
	}
	return k.table + "." + k.name
}

// variable is the environment variable that sets k.
func (k key) variable() string {
	return envPrefix + strings.ToUpper(k.table) + envDelim + strings.ToUpper(k.name)
}

// odd is a value that no key takes (a float, a date, a table), as a problem names it.
type odd string

// read turns raw into the value of k. raw is a string, bool, int64, []any of such, or an odd. Where it can't be, problem
// says so in full.
func (k key) read(raw any) (value any, problem string) {
	value, fits := k.convert(raw)
	if !fits {
		return nil, "must be " + k.want + ", not " + describe(raw)
	}
	if k.kind != list {
		if !k.ok(value) {
			return nil, "must be " + k.want + ", not " + describe(raw)
		}
		return value, ""
	}
	for _, entry := range value.([]string) {
		if !k.ok(entry) {
			return nil, "must be " + k.want + ", not one with " + describe(entry)
		}
	}
	return value, ""
}

// convert gives raw the Go type of k's kind, or reports that it is of another kind.
func (k key) convert(raw any) (any, bool) {
	switch k.kind {
	case text:
		v, ok := raw.(string)
		return v, ok
	case flag:
		v, ok := raw.(bool)
		return v, ok
	case number:
		v, ok := raw.(int64)
		return int(v), ok && int64(int(v)) == v
	case list:
		return toStrings(raw)
	case duration:
		s, ok := raw.(string)
		if !ok {
			return nil, false
		}
		return parseDuration(s)
	case size:
		return toSize(raw)
	default: // floor
		if raw == "auto" {
			return int64(0), true
		}
		v, ok := toSize(raw)
		return v, ok && v != 0
	}
}

func toStrings(raw any) ([]string, bool) {
	entries, ok := raw.([]any)
	if !ok {
		return nil, false
	}
	values := make([]string, 0, len(entries))
	for _, e := range entries {
		s, ok := e.(string)
		if !ok {
			return nil, false
		}
		values = append(values, s)
	}
	return values, true
}

func toSize(raw any) (int64, bool) {
	if s, ok := raw.(string); ok {
		return parseSize(s)
	}
	v, ok := raw.(int64)
	return v, ok
}

// fromText is what the text of an environment variable would be in the file. Text that isn't of k's kind stays a
// string, which read then refuses.
func (k key) fromText(s string) any {
	switch k.kind {
	case flag:
		if s == "true" || s == "false" {
			return s == "true"
		}
	case number:
		if v, err := strconv.ParseInt(s, 10, 64); err == nil {
			return v
		}
	case list:
		entries := []any{}
		for e := range strings.SplitSeq(s, ",") {
			if e = strings.TrimSpace(e); e != "" {
				entries = append(entries, e)
			}
		}
		return entries
	}
	return s
}

// describe shows a raw value in a problem: short, on one line, and with nothing in it that a terminal would obey.
func describe(raw any) string {
	const most = 60
	switch v := raw.(type) {
	case string:
		if r := []rune(v); len(r) > most {
			v = string(r[:most]) + "…"
		}
		return strconv.Quote(v)
	case []any:
		for _, e := range v {
			if _, ok := e.(string); !ok {
				return "a list with " + describe(e)
			}
		}
		return "a list"
	default:
		return fmt.Sprint(v)
	}
}
