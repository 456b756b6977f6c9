package config

import (
	"strings"
	"testing"
	"time"
)

const everyKey = `
[api]
listen = "[::]:0"
require_token = true
allowed_hosts = [ # for the tunnel
  "localhost:9000",
  "cortex.example.com", '[fe80::1]',
]
[tmux]
binary = "/usr/bin/tmux"
socket = '/run/tmux.sock'
[runner]
binary = "/opt/cortex-runner"
grace = "1m30s"
output_max = "4KiB"
cgroup = false
columns = 0x50
rows = 2_4
[disk]
floor = 1_500_000_000
[log]
"level" = "debug"
format = """
json"""
[projects.web]
max_concurrent = 2
[projects."my.shop"]
max_starts_per_minute = 3
[agents]
claude.max_concurrent = 4
codex = {max_concurrent = 5, max_starts_per_minute = 6}
[providers.anthropic]
max_concurrent = 7
[scheduler]
max_concurrent_dispatches = 15
max_per_project = 1
max_per_agent = 2
max_per_provider = 3
max_starts_per_minute = 4
ageing = "1d"
min_memory = "2GiB"
max_load = 150
paused_warning = "1d"
`

func everyValue() Config {
	return Config{
		API: API{Listen: "[::]:0", RequireToken: true,
			AllowedHosts: []string{"localhost:9000", "cortex.example.com", "[fe80::1]"}},
		Tmux:      Tmux{Binary: "/usr/bin/tmux", Socket: "/run/tmux.sock"},
		Runner:    Runner{Binary: "/opt/cortex-runner", Grace: 90 * time.Second, OutputMax: 4096, Columns: 80, Rows: 24},
		Disk:      Disk{Floor: 1_500_000_000},
		Log:       Log{Level: "debug", Format: "json"},
		Projects:  map[string]Bound{"web": {MaxConcurrent: 2}, "my.shop": {MaxStartsPerMinute: 3}},
		Agents:    map[string]Bound{"claude": {MaxConcurrent: 4}, "codex": {5, 6}},
		Providers: map[string]Bound{"anthropic": {MaxConcurrent: 7}},
		Scheduler: Scheduler{MaxConcurrentDispatches: 15, MaxPerProject: 1, MaxPerAgent: 2, MaxPerProvider: 3,
			MaxStartsPerMinute: 4, Ageing: 24 * time.Hour, MinMemory: 2 << 30, MaxLoad: 150, PausedWarning: 24 * time.Hour},
	}
}

const schedulerKeys = "max_concurrent_dispatches, max_per_project, max_per_agent, max_per_provider, max_starts_per_minute, " +
	"ageing, min_memory, max_load, paused_warning"

const wantLimit = "must be a whole number from 1 to 10000, not "

// TestProblems holds every kind of problem to the very lines that are printed.
func TestProblems(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"nothing", "", nil},
		{"byte order mark", "\ufeff[log]\nlevel = 'warn'", nil},
		{"line ends of Windows", "[log]\r\nlevel = 'warn'\r\n", nil},
		{"tables in other ways", "log = {level = 'warn', format = 'json'}\nscheduler.max_concurrent_dispatches = 3\n", nil},

		// Tables with a name.
		{"names of any kind", "[projects.'a b']\nmax_concurrent = 1\n[projects.max_concurrent]\nmax_concurrent = 1\n", nil},
		{"an empty name", "[agents.'']\nmax_concurrent = 1\n", []string{
			"1: [agents.\"\"]: the name is empty", "2: agents.\"\".max_concurrent: the name is empty"}},
		{"a name with control characters", "[agents.\"a\\u001b\"]\n", []string{
			`1: [agents."a\x1b"]: control characters are not allowed in the name`}},
		{"misspelt key of a name", "[projects.web]\nmax_concurent = 1\n", []string{
			"2: projects.web.max_concurent: unknown key; did you mean max_concurrent?"}},
		{"unknown key of a name", "[projects.web]\ncolour = 1\n", []string{
			"2: projects.web.colour: unknown key; [projects.NAME] has max_concurrent, max_starts_per_minute"}},
		{"out of range for a name", "[projects.web]\nmax_concurrent = -1\n", []string{
			"2: projects.web.max_concurrent: must be a whole number from 0 (no bound of its own) to 10000, not -1"}},
		{"a name made a value", "[projects]\nweb = 2\n", []string{
			"2: projects.web: is a table, not a value: write [projects.web] and its keys below"}},
		{"no name", "[projects]\nmax_concurrent = 2\n", []string{
			"2: projects.max_concurrent: belongs in the table of one name: write [projects.NAME] and the key below"}},
		{"misspelt family", "[project.web]\nmax_concurrent = 2\n", []string{
			"1: [project.web]: unknown table; did you mean [projects.NAME]?"}},
		{"a name twice", "[projects.web]\n[projects.web]\n", []string{
			"2: [projects.web]: this table is there twice, first in line 1: keep its keys together there"}},
		{"a list of names", "[[projects.web]]\nmax_concurrent = 1\n", []string{
			"1: [[projects.web]]: must be a single table: write [projects.web]"}},

		// Names.
		{"unknown key", "[tmux]\ncolour = 1\n", []string{"2: tmux.colour: unknown key; [tmux] has binary, socket"}},
		{"unknown key outside", "colour = 1\n", []string{"1: colour: outside of any table"}},
		{"misspelt", "[runner]\ncolums = 100\n", []string{"2: runner.colums: unknown key; did you mean columns?"}},
		{"misspelt, and out of range", "[runner]\ncolums = 1\n", []string{
			"2: runner.colums: unknown key; did you mean columns?",
			"2: runner.colums: must be a whole number from 20 to 1000, not 1"}},
		{"misspelt and misplaced", "[log]\nmax-concurent-dispatches = 5\n", []string{
			"2: log.max-concurent-dispatches: unknown key; did you mean max_concurrent_dispatches in [scheduler]?"}},
		{"wrong table", "[api]\nmax_concurrent_dispatches = 15\n", []string{
			"2: api.max_concurrent_dispatches: not a key of [api]; it belongs in [scheduler]"}},
		{"wrong table and type", "[api]\nmax_concurrent_dispatches = '15'\n", []string{
			"2: api.max_concurrent_dispatches: not a key of [api]; it belongs in [scheduler]",
			"2: api.max_concurrent_dispatches: " + wantLimit + `"15"`}},
		{"wrong table, two would fit", "[log]\nbinary = '/x'\n", []string{
			"2: log.binary: not a key of [log]; it belongs in [tmux] or [runner]"}},
		{"top level", "max_concurrent_dispatches = 15\n", []string{
			"1: max_concurrent_dispatches: outside of any table; it belongs in [scheduler]"}},
		{"top level, misspelt", "max_concurent_dispatches = 15\n", []string{
			"1: max_concurent_dispatches: outside of any table; did you mean max_concurrent_dispatches in [scheduler]?"}},
		{"misspelt, two would fit", "[log]\nbinry = '/x'\n", []string{
			"2: log.binry: unknown key; did you mean binary in [tmux] or binary in [runner]?"}},
		{"unknown table", "[colours]\nred = 1\n", []string{
			"1: [colours]: unknown table; there are [api], [tmux], [runner], [disk], [log], [projects.NAME], [agents.NAME], [providers.NAME], [scheduler]"}},
		{"unknown table with a known key", "[limits]\nmax_concurrent_dispatches = 0\n", []string{
			"1: [limits]: unknown table; there are [api], [tmux], [runner], [disk], [log], [projects.NAME], [agents.NAME], [providers.NAME], [scheduler]",
			"2: limits.max_concurrent_dispatches: not a key of [limits]; it belongs in [scheduler]",
			"2: limits.max_concurrent_dispatches: " + wantLimit + "0"}},
		{"misspelt table", "[Schedular]\nmax_concurrent_dispatches = 0\nnothing_like_it = 1\n", []string{
			"1: [Schedular]: unknown table; did you mean [scheduler]?",
			"2: Schedular.max_concurrent_dispatches: " + wantLimit + "0",
			"3: Schedular.nothing_like_it: unknown key; [scheduler] has " + schedulerKeys}},
		{"misspelt table, dotted", "schedular.max_concurrent_dispatches = 0\n", []string{
			"1: schedular.max_concurrent_dispatches: unknown key; did you mean scheduler.max_concurrent_dispatches?",
			"1: schedular.max_concurrent_dispatches: " + wantLimit + "0"}},
		{"unknown table, dotted", "colours.red = 1\n", []string{"1: colours.red: unknown key"}},
		{"unknown table, inline", "colours = {red = 1}\n", []string{"1: colours: outside of any table"}},
		{"table in a table", "[scheduler.limits]\nmost = 1\n", []string{
			"1: [scheduler.limits]: unknown table; there are [api], [tmux], [runner], [disk], [log], [projects.NAME], [agents.NAME], [providers.NAME], [scheduler]"}},
		{"a key made a table", "[scheduler.max_concurrent_dispatches]\nmost = 1\n", []string{
			"1: [scheduler.max_concurrent_dispatches]: is a key, not a table: write max_concurrent_dispatches = … below [scheduler]"}},
		{"a key in a key", "[scheduler]\nmax_concurrent_dispatches.most = 1\n", []string{
			"2: scheduler.max_concurrent_dispatches.most: unknown key; [scheduler] has " + schedulerKeys}},
		{"a table made a value", "scheduler = 15\n", []string{
			"1: scheduler: is a table, not a value: write [scheduler] and its keys below"}},
		{"a list of tables", "[[scheduler]]\nmax_concurrent_dispatches = 1\n[[scheduler]]\nmax_concurrent_dispatches = 2\n", []string{
			"1: [[scheduler]]: must be a single table: write [scheduler]",
			"3: [[scheduler]]: must be a single table: write [scheduler]"}},
		{"hostile name", "[tmux]\n\"a.b\\u001b[2J\" = 1\n", []string{
			`2: tmux."a.b\x1b[2J": unknown key; [tmux] has binary, socket`}},
		{"very long name", "[tmux]\n" + strings.Repeat("x", 70) + " = 1\n", []string{
			"2: tmux." + strings.Repeat("x", 70) + ": unknown key; [tmux] has binary, socket"}},
		{"empty name", "[tmux]\n\"\" = 1\n", []string{`2: tmux."": unknown key; [tmux] has binary, socket`}},

		// Twice.
		{"duplicate key", "[scheduler]\nmax_concurrent_dispatches = 1\n\nmax_concurrent_dispatches = 0\n", []string{
			"4: scheduler.max_concurrent_dispatches: set twice, first in line 2",
			"4: scheduler.max_concurrent_dispatches: " + wantLimit + "0"}},
		{"duplicate unknown key", "[tmux]\ncolour = 1\ncolour = 1\n", []string{
			"2: tmux.colour: unknown key; [tmux] has binary, socket",
			"3: tmux.colour: set twice, first in line 2",
			"3: tmux.colour: unknown key; [tmux] has binary, socket"}},
		{"duplicate table", "[scheduler]\n[log]\n[scheduler]\nmax_concurrent_dispatches = 0\n", []string{
			"3: [scheduler]: this table is there twice, first in line 1: keep its keys together there",
			"4: scheduler.max_concurrent_dispatches: " + wantLimit + "0"}},
		{"header after dotted", "log.level = 'warn'\n[log]\n", []string{
			"2: [log]: this table is there twice, first in line 1: keep its keys together there"}},
		{"inline table after dotted", "log.level = 'warn'\nlog = {}\n", []string{
			"2: [log]: this table is there twice, first in line 1: keep its keys together there"}},
		{"dotted after inline table", "log = {}\nlog.level = 'warn'\n", []string{
			"2: log.level: [log] is closed in line 1: put the key there"}},

		// Values.
		{"string for number", "[scheduler]\nmax_concurrent_dispatches = \"15\"\n", []string{
			"2: scheduler.max_concurrent_dispatches: " + wantLimit + `"15"`}},
		{"float", "[scheduler]\nmax_concurrent_dispatches = 1.5\n", []string{
			"2: scheduler.max_concurrent_dispatches: " + wantLimit + "1.5"}},
		{"bool", "[scheduler]\nmax_concurrent_dispatches = true\n", []string{
			"2: scheduler.max_concurrent_dispatches: " + wantLimit + "true"}},
		{"date", "[scheduler]\nmax_concurrent_dispatches = 2026-02-18\n", []string{
			"2: scheduler.max_concurrent_dispatches: " + wantLimit + "2026-02-18"}},
		{"list", "[scheduler]\nmax_concurrent_dispatches = [15]\n", []string{
			"2: scheduler.max_concurrent_dispatches: " + wantLimit + "a list with 15"}},
		{"table", "[scheduler]\nmax_concurrent_dispatches = {n = 15}\n", []string{
			"2: scheduler.max_concurrent_dispatches: " + wantLimit + "a table"}},
		{"leading zero", "[scheduler]\nmax_concurrent_dispatches = 015\n", []string{
			"2: scheduler.max_concurrent_dispatches: " + wantLimit + "0",
			"2:30: scheduler.max_concurrent_dispatches: not TOML: expected newline but got U+0031 '1'"}},
		{"wrong underscores", "[scheduler]\nmax_concurrent_dispatches = 1__0\n", []string{
			"2: scheduler.max_concurrent_dispatches: " + wantLimit + "1__0"}},
		{"beyond 64 bits", "[scheduler]\nmax_concurrent_dispatches = 99999999999999999999\n", []string{
			"2: scheduler.max_concurrent_dispatches: " + wantLimit + "99999999999999999999"}},
		{"out of range", "[scheduler]\nmax_concurrent_dispatches = 10001\n[runner]\nrows = 4\ncolumns = -20\n", []string{
			"2: scheduler.max_concurrent_dispatches: " + wantLimit + "10001",
			"4: runner.rows: must be a whole number from 5 to 1000, not 4",
			"5: runner.columns: must be a whole number from 20 to 1000, not -20"}},
		{"strings", "[log]\nlevel = 'loud'\nformat = 1\n[tmux]\nbinary = 'tmux'\nsocket = '/" + strings.Repeat("s", 107) + "'\n", []string{
			`2: log.level: must be "debug", "info", "warn" or "error", not "loud"`,
			`3: log.format: must be "text" or "json", not 1`,
			`5: tmux.binary: must be an absolute path, or "" for the tmux in PATH, not "tmux"`,
			`6: tmux.socket: must be an absolute path of at most 107 bytes, or "" for the default server, not "/` +
				strings.Repeat("s", 59) + `…"`}},
		{"flag", "[api]\nrequire_token = 'true'\n", []string{`2: api.require_token: must be true or false, not "true"`}},
		{"durations", "[runner]\ngrace = '1h1s'\n", []string{
			`2: runner.grace: must be a duration like "10s", from "0s" to "1h", not "1h1s"`}},
		{"sizes", "[runner]\noutput_max = '4095B'\n[disk]\nfloor = 0\n", []string{
			`2: runner.output_max: must be a size like "64MiB", from "4KiB" to "1TiB", not "4095B"`,
			`4: disk.floor: must be "auto", or a size like "256MiB" from "1B" to "1PiB", not 0`}},
		{"sizes of another type", "[runner]\noutput_max = 1.5\n[disk]\nfloor = true\n", []string{
			`2: runner.output_max: must be a size like "64MiB", from "4KiB" to "1TiB", not 1.5`,
			`4: disk.floor: must be "auto", or a size like "256MiB" from "1B" to "1PiB", not true`}},
		{"hosts", "[api]\nallowed_hosts = ['a', 'b.']\n", []string{"2: api.allowed_hosts: must be a list of host names or addresses, " +
			`each with or without :PORT, not one with "b."`}},
		{"hosts, no list", "[api]\nallowed_hosts = 'a'\n", []string{"2: api.allowed_hosts: must be a list of host names or addresses, " +
			`each with or without :PORT, not "a"`}},
		{"hosts, nested", "[api]\nallowed_hosts = [['a']]\n", []string{"2: api.allowed_hosts: must be a list of host names or addresses, " +
			"each with or without :PORT, not a list with a list"}},
		{"list of strings for a string", "[log]\nlevel = ['info']\n", []string{
			`2: log.level: must be "debug", "info", "warn" or "error", not a list`}},
		{"listen", "[api]\nlisten = '127.0.0.1'\n", []string{
			`2: api.listen: must be HOST:PORT with a port from 0 to 65535, not "127.0.0.1"`}},
		{"not loopback", "[api]\nlisten = ':8900'\n", []string{"2: api.listen: :8900 is not a loopback address: " +
			"other hosts could reach it, so that it needs api.require_token = true"}},

		// Not TOML.
		{"no value", "[log]\nlevel =\nformat = 'xml'\n", []string{
			"2:8: log.level: not TOML: no value after the =; text needs quotes",
			`3: log.format: must be "text" or "json", not "xml"`}},
		{"no quotes", "[log]\nlevel = warn\n", []string{"2:9: log.level: not TOML: no value after the =; text needs quotes"}},
		{"rest of a line", "[runner]\nrows = 1 24\n", []string{
			"2: runner.rows: must be a whole number from 5 to 1000, not 1",
			"2:10: runner.rows: not TOML: expected newline but got U+0032 '2'"}},
		{"prose", "[log]\nlevel is warn\n# and\nformat = 'json'\n", []string{"2:7: not TOML: expected character ="}},
		{"problems before and after", "[log]\nlevel = 'loud'\n= 5\n[runner]\nrows = 1\n", []string{
			`2: log.level: must be "debug", "info", "warn" or "error", not "loud"`,
			"3:1: not TOML: invalid character at start of key: =",
			"5: runner.rows: must be a whole number from 5 to 1000, not 1"}},
		{"broken header", "[runner\nrows = 1\n[log\nlevel]\nformat = 1\n", []string{
			"1:8: not TOML: expected character ]",
			"2: runner.rows: must be a whole number from 5 to 1000, not 1",
			"3:5: not TOML: expected character ]",
			`5: log.format: must be "text" or "json", not 1`}},
		{"broken header, of no known table", "[?]\nrows = 1\nrows = 1\nx y\n[runner]\nrows = 1\n", []string{
			"1:2: not TOML: invalid character at start of key: ?",
			"4:3: not TOML: expected character =",
			"6: runner.rows: must be a whole number from 5 to 1000, not 1"}},
		{"key below a lost header", "[?]\nrows = !\n", []string{
			"1:2: not TOML: invalid character at start of key: ?", "2:8: not TOML: no value after the =; text needs quotes"}},
		{"list not closed", "[api]\nallowed_hosts = ['a',\nrequire_token = 1\n[log]\nlevel = 1\n", []string{
			"3: api.require_token: must be true or false, not 1",
			"3:1: api.require_token: not TOML: the value above is not closed",
			`5: log.level: must be "debug", "info", "warn" or "error", not 1`}},
		{"list broken in the middle", "[api]\nallowed_hosts = [\n  'a' 'b',\n  'c',\n]\nrequire_token = 1\n", []string{
			"3:7: not TOML: array elements must be separated by commas", "6: api.require_token: must be true or false, not 1"}},
		{"string not closed", "[log]\nlevel = 'warn\nformat = 1\n", []string{
			"2:14: log.level: not TOML: literal strings cannot have new lines", `3: log.format: must be "text" or "json", not 1`}},
		{"not UTF-8", "[log]\n# \xff\xfe\nlevel = '\xc3('\nrows = 1\n", []string{
			"2:3: not UTF-8: byte 0xff", "3:10: not UTF-8: byte 0xc3",
			"4: log.rows: not a key of [log]; it belongs in [runner]",
			"4: log.rows: must be a whole number from 5 to 1000, not 1"}},
		{"not UTF-8 in a key", "[log]\n\xff\xffx y\n", []string{"2:1: not UTF-8: byte 0xff"}},
		{"UTF-16", "\xff\xfe[\x00l\x00o\x00g\x00]\x00", []string{"1:1: not UTF-8: byte 0xff"}},
		{"binary", "\x7fELF\x02\x01\x00", []string{"1:1: not TOML: invalid character at start of key: \\x7f"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var want []string
			for _, line := range c.want {
				want = append(want, "cortex.toml:"+line)
			}
			_, err := Load("cortex.toml", nil, write(t, "cortex.toml", c.text))
			expect(t, err, want...)
		})
	}
}
