// Package config owns the settings of cortex: their names, defaults and limits, and reading them strictly from a TOML
// file and the environment. It never starts, opens or creates anything that a setting names, and never writes a file.
package config

import "time"

// Config is every setting, a section for each table of the file. The tags are the names in the file; keys.go says what
// each may be, cortex.example.toml what each means.
type Config struct {
	Path string `koanf:"-"` // absolute path of the file that was read; empty where there was none

	API       API              `koanf:"api"`
	Tmux      Tmux             `koanf:"tmux"`
	Runner    Runner           `koanf:"runner"`
	Disk      Disk             `koanf:"disk"`
	Log       Log              `koanf:"log"`
	Projects  map[string]Bound `koanf:"projects"` // by name
	Agents    map[string]Bound `koanf:"agents"`
	Providers map[string]Bound `koanf:"providers"`
	Scheduler Scheduler        `koanf:"scheduler"`
}

// API is the table [api].
type API struct {
	Listen       string   `koanf:"listen"`        // host:port of the TCP listener
	RequireToken bool     `koanf:"require_token"` // the bearer token for everything, not only for what starts commands
	AllowedHosts []string `koanf:"allowed_hosts"` // host or host:port beyond the loopback names; never nil
}

// Tmux is the table [tmux].
type Tmux struct {
	Binary string `koanf:"binary"` // absolute path; empty: tmux from PATH
	Socket string `koanf:"socket"` // absolute path; empty: the user's default server
}

// Runner is the table [runner].
type Runner struct {
	Binary    string        `koanf:"binary"`     // absolute path; empty: cortex-runner beside cortex
	Grace     time.Duration `koanf:"grace"`      // between a cancel's first signal and the kill of the whole tree
	OutputMax int64         `koanf:"output_max"` // bytes kept of one attempt's output
	Cgroup    bool          `koanf:"cgroup"`     // a control group for each dispatch, where one may be made
	Columns   int           `koanf:"columns"`    // width of an agent's terminal
	Rows      int           `koanf:"rows"`       // its height
}

// Disk is the table [disk].
type Disk struct {
	Floor int64 `koanf:"floor"` // bytes that stay free; 0 ("auto"): 2 % of the file system, 1 MiB to 256 MiB
}

// Log is the table [log].
type Log struct {
	Level  string `koanf:"level"`  // debug, info, warn, error
	Format string `koanf:"format"` // text, json
}

// Bound is a table [projects.NAME], [agents.NAME] or [providers.NAME].
type Bound struct {
	MaxConcurrent      int `koanf:"max_concurrent"`        // at a time; 0: no bound of its own
	MaxStartsPerMinute int `koanf:"max_starts_per_minute"` // 0: none
}

// Scheduler is the table [scheduler].
type Scheduler struct {
	MaxConcurrentDispatches int           `koanf:"max_concurrent_dispatches"`
	MaxPerProject           int           `koanf:"max_per_project"` // at a time; 0: no bound, as of the next two
	MaxPerAgent             int           `koanf:"max_per_agent"`
	MaxPerProvider          int           `koanf:"max_per_provider"`
	MaxStartsPerMinute      int           `koanf:"max_starts_per_minute"` // 0: no bound
	Ageing                  time.Duration `koanf:"ageing"`                // what a step of priority is worth; 0: nothing makes up for it
	MinMemory               int64         `koanf:"min_memory"`            // bytes available below which nothing starts; 0: no bound
	MaxLoad                 int           `koanf:"max_load"`              // percent of the processors; 0: no bound
	PausedWarning           time.Duration `koanf:"paused_warning"`        // a pause that is longer is an event; 0: none is
}

// Defaults returns the settings that hold where no file and no variable says otherwise.
func Defaults() Config {
	return Config{
		API:      API{Listen: "127.0.0.1:8900", AllowedHosts: []string{}},
		Runner:   Runner{Grace: 10 * time.Second, OutputMax: 64 << 20, Cgroup: true, Columns: 200, Rows: 50},
		Log:      Log{Level: "info", Format: "text"},
		Projects: map[string]Bound{}, Agents: map[string]Bound{}, Providers: map[string]Bound{},
		Scheduler: Scheduler{MaxConcurrentDispatches: 10, Ageing: 24 * time.Hour, PausedWarning: 4 * time.Hour},
	}
}
