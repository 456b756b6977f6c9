package config

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEveryKeyCountsFromSomeTimeOn: each key either counts at a reload or needs a restart, and the example file says which.
func TestEveryKeyCountsFromSomeTimeOn(t *testing.T) {
	t.Parallel()
	want := fields()
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(counts)); !slices.Equal(got, want) {
		t.Errorf("decided is for %v, there are %v", got, want)
	}
	table, said := "", map[string]bool{}
	comment := ""
	for line := range strings.Lines(example(t)) {
		switch key := keyLine.FindStringSubmatch(line); {
		case strings.HasPrefix(line, "["):
			table, comment = strings.Trim(line, "[]\n"), ""
		case key != nil: // keys that follow each other share what stands above them
			said[table+"."+key[1]] = regexp.MustCompile(`Needs a\s(# )?restart\.`).MatchString(comment)
		case strings.HasPrefix(line, "#"):
			comment += line
		default:
			comment = ""
		}
	}
	for path, at := range counts {
		if said[path] != (at == atStart) {
			t.Errorf("%s needs a restart: %v, the example says %v", path, at == atStart, said[path])
		}
	}
}

// reading reads text as the configuration, with the environment over it.
func reading(t *testing.T, text string, environ ...string) Reading {
	t.Helper()
	r, err := Origin{Environ: environ, Cwd: write(t, "cortex.toml", text)}.Read()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestOver(t *testing.T) {
	t.Parallel()
	inForce := Defaults()
	inForce.Path, inForce.API.Listen, inForce.API.RequireToken = "/old.toml", "0.0.0.0:8900", true
	for name, c := range map[string]struct {
		text    string
		environ []string
		changed []string
		restart []string
		next    func(*Config)
	}{
		"nothing": {"[api]\nlisten = '0.0.0.0:8900'\nrequire_token = true\n", nil, nil, nil, func(*Config) {}},
		"both": {"[api]\nlisten = '127.0.0.1:1'\nrequire_token = true\nallowed_hosts = ['a']\n[log]\nformat = 'json'\nlevel = 'warn'\n", nil,
			[]string{"api.allowed_hosts", "log.level"}, []string{"api.listen", "log.format"},
			func(c *Config) { c.API.AllowedHosts, c.Log.Level = []string{"a"}, "warn" }},
		"tables with names": {"[api]\nlisten = '0.0.0.0:8900'\nrequire_token = true\n[projects.\"my.shop\"]\nmax_concurrent = 2\n[agents.claude]\nmax_starts_per_minute = 3\n", nil,
			[]string{"agents.claude.max_concurrent", "agents.claude.max_starts_per_minute", "projects.my.shop.max_concurrent",
				"projects.my.shop.max_starts_per_minute"}, nil, func(c *Config) {
				c.Projects, c.Agents = map[string]Bound{"my.shop": {MaxConcurrent: 2}}, map[string]Bound{"claude": {MaxStartsPerMinute: 3}}
			}},
		"the environment wins": {"[scheduler]\nmax_concurrent_dispatches = 3\n",
			[]string{"CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=4", "CORTEX_API__LISTEN=0.0.0.0:8900", "CORTEX_API__REQUIRE_TOKEN=true"},
			[]string{"scheduler.max_concurrent_dispatches"}, nil, func(c *Config) { c.Scheduler.MaxConcurrentDispatches = 4 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := reading(t, c.text, c.environ...)
			next, change, err := r.Over(inForce)
			want := inForce
			want.Path = r.Path
			c.next(&want)
			if err != nil || !reflect.DeepEqual(next, want) {
				t.Errorf("%+v (%v)\nwant %+v", next, err, want)
			}
			if change.Path != r.Path || !slices.Equal(change.Changed, c.changed) || !slices.Equal(change.RestartRequired, c.restart) ||
				change.Changed == nil || change.RestartRequired == nil {
				t.Errorf("%+v", change)
			}
		})
	}
}

// TestOpenAddressKeepsItsToken: a daemon that other hosts can reach never goes without a token, though the file by itself would
// be right: its address would change at a restart only.
func TestOpenAddressKeepsItsToken(t *testing.T) {
	t.Parallel()
	inForce := Defaults()
	inForce.API.Listen, inForce.API.RequireToken = "0.0.0.0:8900", true
	r := reading(t, "[api]\nlisten = '127.0.0.1:8900'\n")
	next, _, err := r.Over(inForce)
	if !reflect.DeepEqual(next, inForce) {
		t.Errorf("%+v", next)
	}
	expect(t, err, r.Path+":2: api.listen: what is in force until a restart does not go together with the rest: "+
		"0.0.0.0:8900 is not a loopback address: other hosts could reach it, so that it needs api.require_token = true")
	r = reading(t, "")
	_, _, err = r.Over(inForce)
	if wrong, ok := errors.AsType[Problems](err); !ok || wrong[0].Source != r.Path || wrong[0].Key != "api.listen" {
		t.Errorf("%v", err)
	}
}

// TestReadAgain: the file is chosen as a start would, problems name it by its absolute path, and what can't be read twice is
// not taken for empty.
func TestReadAgain(t *testing.T) {
	t.Parallel()
	dir := write(t, "cortex.toml", "[log]\nlevel = 'loud'\n[x]\n")
	path := filepath.Join(dir, "cortex.toml")
	found := Origin{Cwd: dir}
	_, err := found.Read()
	expect(t, err, path+`:2: log.level: must be "debug", "info", "warn" or "error", not "loud"`,
		path+":3: [x]: unknown table; there are [api], [tmux], [runner], [disk], [log], "+
			"[projects.NAME], [agents.NAME], [providers.NAME], [scheduler]")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if r, err := found.Read(); err != nil || !reflect.DeepEqual(r.Config, Defaults()) {
		t.Errorf("without it: %+v %v", r.Config, err)
	}
	named := Origin{Flag: "cortex.toml", Cwd: dir}
	_, err = named.Read()
	expect(t, err, path+": no such file (named by --config)")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err = named.Read()
	expect(t, err, path+": is a directory (named by --config)")
	if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err = named.Read() // without opening it, which would wait for a writer
	expect(t, err, path+": is not a regular file: it is read at the start only")
}

// TestMark: whatever becomes of the file changes its mark, and nothing else does.
func TestMark(t *testing.T) {
	t.Parallel()
	dir := write(t, "a/cortex.toml", "[log]\n")
	path := filepath.Join(dir, "cortex.toml")
	o := Origin{Cwd: dir}
	last := o.Mark()
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"appears", func() error { return os.WriteFile(path, []byte("[log]\n"), 0o600) }},
		{"grows", func() error { return os.WriteFile(path, []byte("[log]\n\n"), 0o600) }},
		{"gets another mode", func() error { return os.Chmod(path, 0o640) }},
		{"is renamed over", func() error {
			return errors.Join(os.WriteFile(path+"~", []byte("[api]\n\n"), 0o600), os.Rename(path+"~", path))
		}},
		{"vanishes", func() error { return os.Remove(path) }},
		{"is a link through a folder", func() error {
			return errors.Join(os.Symlink("a", filepath.Join(dir, "data")), os.Symlink("data/cortex.toml", path))
		}},
		{"is behind a folder that is swapped", func() error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "b"), 0o700), os.WriteFile(filepath.Join(dir, "b/cortex.toml"), []byte("[log]\n"), 0o600),
				os.Symlink("b", filepath.Join(dir, "new")), os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "data")))
		}},
		{"is behind a dangling link", func() error { return os.RemoveAll(filepath.Join(dir, "b")) }},
		{"is another one", func() error {
			return errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(dir, "xdg/cortex"), 0o700),
				os.WriteFile(filepath.Join(dir, "xdg/cortex/cortex.toml"), nil, 0o600))
		}},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		o.Environ = []string{"XDG_CONFIG_HOME=" + filepath.Join(dir, "xdg")}
		mark := o.Mark()
		if mark == last {
			t.Errorf("it %s: the same mark", step.name)
		}
		if _, err := os.ReadFile(path); mark != o.Mark() {
			t.Errorf("it %s, and was read (%v): another mark", step.name, err)
		}
		last = mark
	}
}
