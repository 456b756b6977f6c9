package config

import (
	"cmp"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/structs"
	"github.com/knadh/koanf/v2"
	"golang.org/x/sys/unix"
)

// when says from when on a changed key counts in a daemon that runs.
type when bool

const (
	atReload when = true  // as soon as the file is read again
	atStart  when = false // the daemon's next one: what it stands for was opened, or handed to others, at the start
)

// counts is the one place that decides what a reload changes. Every key is in it.
var counts = map[string]when{
	"api.listen":                           atStart, // who connects would be cut off
	"api.require_token":                    atReload,
	"api.allowed_hosts":                    atReload,
	"tmux.binary":                          atStart, // what runs is on the server that this names
	"tmux.socket":                          atStart,
	"runner.binary":                        atStart, // looked for, and refused where it is not there, at the start
	"runner.grace":                         atReload,
	"runner.output_max":                    atReload,
	"runner.cgroup":                        atReload,
	"runner.columns":                       atReload,
	"runner.rows":                          atReload,
	"disk.floor":                           atReload,
	"log.level":                            atReload,
	"log.format":                           atStart, // who reads the log reads one format
	"projects.NAME.max_concurrent":         atReload,
	"projects.NAME.max_starts_per_minute":  atReload,
	"agents.NAME.max_concurrent":           atReload,
	"agents.NAME.max_starts_per_minute":    atReload,
	"providers.NAME.max_concurrent":        atReload,
	"providers.NAME.max_starts_per_minute": atReload,
	"scheduler.max_concurrent_dispatches":  atReload,
	"scheduler.max_per_project":            atReload,
	"scheduler.max_per_agent":              atReload,
	"scheduler.max_per_provider":           atReload,
	"scheduler.max_starts_per_minute":      atReload,
	"scheduler.ageing":                     atReload,
	"scheduler.min_memory":                 atReload,
	"scheduler.paused_warning":             atReload,
	"scheduler.max_load":                   atReload,
}

// countsWhen is counts of a key by its path, which has the name of its table in it.
func countsWhen(path string) when {
	table, rest, _ := strings.Cut(path, ".")
	if isFamily(table) { // names may have dots
		path = table + ".NAME" + rest[strings.LastIndex(rest, "."):]
	}
	return counts[path]
}

// Origin is what a daemon was told about its configuration when it started: Load's arguments, kept so that it can be read
// again. The environment can't change while it runs, and goes on to win over the file.
type Origin struct {
	Flag    string
	Environ []string
	Cwd     string
}

// Mark is how the file looks from outside. While two marks are equal nobody has written, replaced or removed it, nor has
// another file become the one to read. Marks are compared with ==.
type Mark struct {
	path              string
	kind              uint32 // S_IFREG, S_IFDIR …; 0 where it can't be seen
	device, inode     uint64
	size              int64
	modified, changed unix.Timespec
	trouble           unix.Errno
}

// Path is the file's absolute path; empty where there is none.
func (m Mark) Path() string { return m.path }

// Mark looks at the file that Read would read now, through symbolic links.
func (o Origin) Mark() Mark {
	m := Mark{path: find(o.Flag, o.Environ, o.Cwd).path}
	if m.path == "" {
		return m
	}
	var st unix.Stat_t
	if err := unix.Stat(m.path, &st); err != nil {
		errors.As(err, &m.trouble)
		return m
	}
	m.kind = st.Mode & unix.S_IFMT
	if m.kind != unix.S_IFREG { // a pipe's times change as it is read
		return m
	}
	m.device, m.inode, m.size, m.modified, m.changed = st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim
	return m
}

// Reading is a configuration that was read, with where each of its values stands.
type Reading struct {
	Config
	Mark Mark // of the file before it was read
	at   map[string]Problem
}

// ErrMoving says that the file was written while it was read: what was read may be half of it.
var ErrMoving = errors.New("the file is being written")

// Read is Load for a daemon that runs: the file is chosen anew, as a start would now choose it, and problems name it by its
// absolute path, since who reads them need not know where the daemon was started. The error is Problems, or ErrMoving. The
// mark is set also where there is an error.
func (o Origin) Read() (Reading, error) {
	r := Reading{Mark: o.Mark()}
	src := find(o.Flag, o.Environ, o.Cwd)
	src.shown = src.path
	switch r.Mark.kind {
	case 0, unix.S_IFREG, unix.S_IFDIR: // or the problem that it is
	default: // what came out of a pipe (--config <(…)) is gone: it would now be read as a file that sets nothing
		return r, Problems{{Source: src.shown, What: "is not a regular file: it is read at the start only"}}
	}
	cfg, at, err := load(src, o.Environ)
	if o.Mark() != r.Mark {
		return r, ErrMoving
	}
	r.Config, r.at = cfg, at
	return r, err
}

// Change is what a reload came to: sorted keys, by their paths.
type Change struct {
	Path            string   // of the file that was read; empty where there is none
	Changed         []string // these count now
	RestartRequired []string // these differ from what is in force, and count from the next start on
}

// Over is the configuration that is in force once r was read by a daemon that c was in force in, with what changes. Keys that
// count from the next start on stay as they are in c. Where that would not go together with the rest of r the error is
// Problems, and nothing is to change.
func (r Reading) Over(c Config) (Config, Change, error) {
	old, wanted := values(c), values(r.Config)
	change := Change{Path: r.Path, Changed: []string{}, RestartRequired: []string{}}
	stay := map[string]any{}
	either := maps.Clone(old) // a table with a name may come and go
	maps.Copy(either, wanted)
	for _, path := range slices.Sorted(maps.Keys(either)) {
		if countsWhen(path) == atStart {
			stay[path] = old[path]
		}
		switch {
		case reflect.DeepEqual(old[path], wanted[path]):
		case countsWhen(path) == atStart:
			change.RestartRequired = append(change.RestartRequired, path)
		default:
			change.Changed = append(change.Changed, path)
		}
	}
	next, err := merge(structs.Provider(r.Config, "koanf"), confmap.Provider(stay, "."))
	if err != nil {
		return c, Change{}, unmerged(err)
	}
	next.Path = r.Path
	if path, what := next.conflict(); path != "" {
		at, ok := r.at[path]
		if !ok {
			at = Problem{Source: cmp.Or(r.Path, "configuration"), Key: path}
		}
		at.What = "what is in force until a restart does not go together with the rest: " + what
		return c, Change{}, Problems{at}
	}
	return next, change, nil
}

// values is every setting by its key's path.
func values(c Config) map[string]any {
	k := koanf.New(".")
	if err := k.Load(structs.Provider(c, "koanf"), nil); err != nil {
		panic(err) // a struct with tags always loads
	}
	all := k.All()
	for _, family := range families {
		delete(all, family) // one without tables
	}
	return all
}
