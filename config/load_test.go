package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/knadh/koanf/providers/confmap"
)

// write makes a file in a new folder and returns the folder.
func write(t *testing.T, name, content string) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// expect compares what Load prints, line by line.
func expect(t *testing.T, err error, want ...string) {
	t.Helper()
	var got []string
	if err != nil {
		if _, ok := errors.AsType[Problems](err); !ok {
			t.Fatalf("not Problems: %T %v", err, err)
		}
		got = strings.Split(err.Error(), "\n")
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("printed\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestLoadNothingGivesDefaults(t *testing.T) {
	t.Parallel()
	cfg, err := Load("", nil, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(cfg, Defaults()) {
		t.Errorf("got %+v, want %+v", cfg, Defaults())
	}
}

func TestLoadOrderOfFiles(t *testing.T) {
	t.Parallel()
	limit := func(n string) string { return "[scheduler]\nmax_concurrent_dispatches = " + n + "\n" }
	flagDir := write(t, "flag.toml", limit("1"))
	envDir := write(t, "env.toml", limit("2"))
	cwd := write(t, "cortex.toml", limit("3"))
	xdg := write(t, "cortex/cortex.toml", limit("4"))
	home := write(t, ".config/cortex/cortex.toml", limit("5"))
	empty := t.TempDir()
	onlyFile := filepath.Join(write(t, "cortex", "a file where a folder should be"), "cortex")

	flag, named := filepath.Join(flagDir, "flag.toml"), "CORTEX_CONFIG="+filepath.Join(envDir, "env.toml")
	for _, c := range []struct {
		name    string
		flag    string
		environ []string
		cwd     string
		path    string
		limit   int
	}{
		{"flag", flag, []string{named, "XDG_CONFIG_HOME=" + xdg}, cwd, flag, 1},
		{"flag, relative", "flag.toml", nil, flagDir, flag, 1},
		{"CORTEX_CONFIG", "", []string{named, "XDG_CONFIG_HOME=" + xdg}, cwd, filepath.Join(envDir, "env.toml"), 2},
		{"CORTEX_CONFIG, relative", "", []string{"CORTEX_CONFIG=./env.toml"}, envDir, filepath.Join(envDir, "env.toml"), 2},
		{"CORTEX_CONFIG, empty", "", []string{"CORTEX_CONFIG="}, cwd, filepath.Join(cwd, "cortex.toml"), 3},
		{"CORTEX_CONFIG, twice", "", []string{"CORTEX_CONFIG=/none", named}, cwd, filepath.Join(envDir, "env.toml"), 2},
		{"folder", "", []string{"XDG_CONFIG_HOME=" + xdg}, cwd, filepath.Join(cwd, "cortex.toml"), 3},
		{"XDG_CONFIG_HOME", "", []string{"XDG_CONFIG_HOME=" + xdg, "HOME=" + home}, empty,
			filepath.Join(xdg, "cortex/cortex.toml"), 4},
		{"HOME", "", []string{"HOME=" + home}, empty, filepath.Join(home, ".config/cortex/cortex.toml"), 5},
		{"XDG_CONFIG_HOME, relative", "", []string{"XDG_CONFIG_HOME=x", "HOME=" + home}, empty,
			filepath.Join(home, ".config/cortex/cortex.toml"), 5},
		{"nothing there", "", []string{"HOME=" + empty}, empty, "", 10},
		{"no folder", "", []string{"XDG_CONFIG_HOME=" + onlyFile}, empty, "", 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg, err := Load(c.flag, c.environ, c.cwd)
			if err != nil {
				t.Fatal(err)
			}
			if cfg.Path != c.path || cfg.Scheduler.MaxConcurrentDispatches != c.limit {
				t.Errorf("got %q with %d, want %q with %d",
					cfg.Path, cfg.Scheduler.MaxConcurrentDispatches, c.path, c.limit)
			}
		})
	}
}

func TestLoadFilesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink("nowhere", filepath.Join(dir, "cortex.toml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("loop.toml", filepath.Join(dir, "loop.toml")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "large.toml"), make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, flag string
		environ    []string
		want       string
	}{
		{"missing, flag", "absent.toml", nil, "absent.toml: no such file (named by --config)"},
		{"missing, CORTEX_CONFIG", "", []string{"CORTEX_CONFIG=absent.toml"},
			"absent.toml: no such file (named by CORTEX_CONFIG)"},
		{"dangling link", "", nil, "cortex.toml: no such file"},
		{"folder", dir, nil, dir + ": is a directory (named by --config)"},
		{"loop", "loop.toml", nil, "loop.toml: can't be read: too many levels of symbolic links (named by --config)"},
		{"read error", "/proc/self/mem", nil, "/proc/self/mem: can't be read: input/output error (named by --config)"},
		{"too large", "large.toml", nil, "large.toml: is larger than 256 KiB: not a configuration (named by --config)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(c.flag, c.environ, dir)
			expect(t, err, c.want)
		})
	}
}

func TestLoadAllAtOnce(t *testing.T) {
	t.Parallel()
	dir := write(t, "cortex.toml", `
[api]
listen = "0.0.0.0:8900"
[runner]
columns = 5000
grace = 10
`)
	_, err := Load("cortex.toml", []string{"CORTEX_RUNNER__ROWS=many", "CORTEX_LOG__LEVEL=loud"}, dir)
	expect(t, err,
		"cortex.toml:3: api.listen: 0.0.0.0:8900 is not a loopback address: other hosts could reach it, "+
			"so that it needs api.require_token = true",
		"cortex.toml:5: runner.columns: must be a whole number from 20 to 1000, not 5000",
		`cortex.toml:6: runner.grace: must be a duration like "10s", from "0s" to "1h", not 10`,
		`environment: CORTEX_LOG__LEVEL: must be "debug", "info", "warn" or "error", not "loud"`,
		`environment: CORTEX_RUNNER__ROWS: must be a whole number from 5 to 1000, not "many"`,
	)
}

func TestLoadEveryKeyFromTheFile(t *testing.T) {
	t.Parallel()
	dir := write(t, "cortex.toml", everyKey)
	cfg, err := Load("", nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	want := everyValue()
	want.Path = filepath.Join(dir, "cortex.toml")
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got %+v, want %+v", cfg, want)
	}
}

func TestLoadEveryKeyFromTheEnvironment(t *testing.T) {
	t.Parallel()
	cfg, err := Load("", []string{
		"CORTEX_API__LISTEN=[::]:0",
		"CORTEX_API__REQUIRE_TOKEN=true",
		"CORTEX_API__ALLOWED_HOSTS=localhost:9000, cortex.example.com,,[fe80::1]",
		"CORTEX_TMUX__BINARY=/usr/bin/tmux",
		"CORTEX_TMUX__SOCKET=/run/tmux.sock",
		"CORTEX_RUNNER__BINARY=/opt/cortex-runner",
		"CORTEX_RUNNER__GRACE=1m30s",
		"CORTEX_RUNNER__OUTPUT_MAX=4096",
		"CORTEX_RUNNER__CGROUP=false",
		"CORTEX_RUNNER__COLUMNS=80",
		"CORTEX_RUNNER__ROWS=24",
		"CORTEX_DISK__FLOOR=1.5GB",
		"CORTEX_LOG__LEVEL=debug",
		"CORTEX_LOG__FORMAT=json",
		"CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=15",
		"CORTEX_SCHEDULER__MAX_PER_PROJECT=1",
		"CORTEX_SCHEDULER__MAX_PER_AGENT=2",
		"CORTEX_SCHEDULER__MAX_PER_PROVIDER=3",
		"CORTEX_SCHEDULER__MAX_STARTS_PER_MINUTE=4",
		"CORTEX_SCHEDULER__AGEING=1d",
		"CORTEX_SCHEDULER__MIN_MEMORY=2GiB",
		"CORTEX_SCHEDULER__MAX_LOAD=150",
		"CORTEX_PROJECTS__web__MAX_CONCURRENT=2",
		"CORTEX_PROJECTS__my.shop__MAX_STARTS_PER_MINUTE=3",
		"CORTEX_AGENTS__claude__MAX_CONCURRENT=4",
		"CORTEX_AGENTS__codex__MAX_CONCURRENT=5",
		"CORTEX_AGENTS__codex__MAX_STARTS_PER_MINUTE=6",
		"CORTEX_PROVIDERS__anthropic__MAX_CONCURRENT=7",
		"CORTEX_SCHEDULER__PAUSED_WARNING=1d",
		"CORTEX_DISPATCH_ID=7", // no key: one underscore
		"OTHER__NAME=7",
	}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if want := everyValue(); !reflect.DeepEqual(cfg, want) {
		t.Errorf("got %+v, want %+v", cfg, want)
	}
}

func TestLoadEnvironmentWinsOverTheFile(t *testing.T) {
	t.Parallel()
	dir := write(t, "cortex.toml", everyKey)
	cfg, err := Load("", []string{
		"CORTEX_RUNNER__ROWS=25", "CORTEX_RUNNER__ROWS=26", "CORTEX_API__ALLOWED_HOSTS=", "CORTEX_TMUX__BINARY=",
	}, dir)
	if err != nil {
		t.Fatal(err)
	}
	want := everyValue()
	want.Path = filepath.Join(dir, "cortex.toml")
	want.Runner.Rows, want.API.AllowedHosts, want.Tmux.Binary = 26, []string{}, ""
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got %+v, want %+v", cfg, want)
	}
}

// A name that both have keeps the keys that only the file sets.
func TestLoadEnvironmentBesideTheFile(t *testing.T) {
	t.Parallel()
	dir := write(t, "cortex.toml", "[projects.web]\nmax_concurrent = 1\nmax_starts_per_minute = 2\n")
	cfg, err := Load("", []string{"CORTEX_PROJECTS__web__MAX_CONCURRENT=9"}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Projects["web"]; got != (Bound{9, 2}) {
		t.Errorf("%+v", got)
	}
}

func TestLoadProblemsOfTheEnvironment(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ entry, want string }{
		{"CORTEX_FOO__BAR=1", "CORTEX_FOO__BAR: unknown key"},
		{"CORTEX___=1", "CORTEX___: unknown key"},
		{"CORTEX_SCHEDULER__MAX_CONCURENT_DISPATCHES=1",
			"CORTEX_SCHEDULER__MAX_CONCURENT_DISPATCHES: unknown key; did you mean CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES?"},
		{"CORTEX_SCHEDULAR__MAX_CONCURRENT_DISPATCHES=1",
			"CORTEX_SCHEDULAR__MAX_CONCURRENT_DISPATCHES: unknown key; did you mean CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES?"},
		{"CORTEX_api__listen=x", "CORTEX_api__listen: unknown key; did you mean CORTEX_API__LISTEN?"},
		{"CORTEX_API__GRACE=1s", "CORTEX_API__GRACE: unknown key; did you mean CORTEX_RUNNER__GRACE?"},
		{"CORTEX_LOG__BINARY=x", "CORTEX_LOG__BINARY: unknown key; did you mean CORTEX_TMUX__BINARY or CORTEX_RUNNER__BINARY?"},
		{"CORTEX_API__\x1b[2J=x", `"CORTEX_API__\x1b[2J": unknown key`},
		{"CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=",
			`CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES: must be a whole number from 1 to 10000, not ""`},
		{"CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=0x10",
			`CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES: must be a whole number from 1 to 10000, not "0x10"`},
		{"CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=10001",
			"CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES: must be a whole number from 1 to 10000, not 10001"},
		{"CORTEX_PROJECTS__MAX_CONCURRENT=1", "CORTEX_PROJECTS__MAX_CONCURRENT: write CORTEX_PROJECTS__NAME__KEY"},
		{"CORTEX_PROJECTS____MAX_CONCURRENT=1", "CORTEX_PROJECTS____MAX_CONCURRENT: the name is empty"},
		{"CORTEX_PROJECTS__web__COLOUR=1",
			"CORTEX_PROJECTS__web__COLOUR: unknown key; [projects.NAME] has max_concurrent, max_starts_per_minute"},
		{"CORTEX_PROJECTS__web__MAX_CONCURRENT=x", "CORTEX_PROJECTS__web__MAX_CONCURRENT: " +
			`must be a whole number from 0 (no bound of its own) to 10000, not "x"`},
		{"CORTEX_API__REQUIRE_TOKEN=yes", `CORTEX_API__REQUIRE_TOKEN: must be true or false, not "yes"`},
		{"CORTEX_RUNNER__GRACE=10", `CORTEX_RUNNER__GRACE: must be a duration like "10s", from "0s" to "1h", not "10"`},
		{"CORTEX_API__ALLOWED_HOSTS=a,http://b", "CORTEX_API__ALLOWED_HOSTS: must be a list of host names or addresses, " +
			`each with or without :PORT, not one with "http://b"`},
		{"CORTEX_API__LISTEN=192.168.1.5:8900", "CORTEX_API__LISTEN: 192.168.1.5:8900 is not a loopback address: " +
			"other hosts could reach it, so that it needs api.require_token = true"},
	} {
		t.Run(c.entry, func(t *testing.T) {
			t.Parallel()
			_, err := Load("", []string{"CORTEX_CONFIG=", c.entry}, t.TempDir())
			expect(t, err, "environment: "+c.want)
		})
	}
}

type refusing struct{}

var errRefused = errors.New("refused")

func (refusing) ReadBytes() ([]byte, error)    { return nil, errRefused }
func (refusing) Read() (map[string]any, error) { return nil, errRefused }

func TestMergeReportsWhatItCannotTake(t *testing.T) {
	t.Parallel()
	_, err := merge(refusing{})
	if !errors.Is(err, errRefused) {
		t.Errorf("a layer that can't be read: %v", err)
	}
	expect(t, unmerged(err), "configuration: can't be merged: refused")
	if _, err := merge(confmap.Provider(map[string]any{"runner.rows": "many"}, ".")); err == nil {
		t.Error("a value of the wrong type was taken")
	}
}
