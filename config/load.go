package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/structs"
	"github.com/knadh/koanf/v2"
)

const (
	envPrefix = "CORTEX_"
	envDelim  = "__" // only variables with it are keys: CORTEX_CONFIG and CORTEX_DISPATCH_ID are not

	maxFile = 256 << 10 // bytes; far above any real file, so that a device or a log named by mistake is not read on
)

// layer is what one source says, each value already of its key's type.
type layer struct {
	values map[string]any     // by key.path()
	at     map[string]Problem // where it stands: Source, Line and Key of a problem with it
	named  map[string]any     // of families, then by name and key
}

func newLayer() layer {
	return layer{values: map[string]any{}, at: map[string]Problem{}, named: map[string]any{}}
}

// Load reads the configuration: defaults, over them the file, over it the environment. The file is the one that flag
// names (--config; empty if not given), else $CORTEX_CONFIG, else cortex.toml in cwd, else
// $XDG_CONFIG_HOME/cortex/cortex.toml, else none. environ is as from os.Environ, cwd an absolute path.
//
// The error is Problems with everything that is wrong in file and environment together; then there is no Config.
func Load(flag string, environ []string, cwd string) (Config, error) {
	cfg, _, err := load(find(flag, environ, cwd), environ)
	return cfg, err
}

// load is Load of the file that was chosen; at is where each value that is set stands, the variable where both set it.
func load(src source, environ []string) (cfg Config, at map[string]Problem, _ error) {
	file, problems := newLayer(), Problems(nil)
	if src.path != "" {
		if content, problem := src.read(); problem != nil {
			problems = append(problems, *problem)
		} else {
			file, problems = readTOML(src.shown, content)
		}
	}
	vars := newLayer()
	problems = append(problems, vars.readNamed(environ)...)
	cfg, err := merge(
		structs.Provider(Defaults(), "koanf"),
		confmap.Provider(file.values, "."),
		confmap.Provider(file.named, ""),
		readEnviron(environ, vars, &problems),
		confmap.Provider(vars.named, ""),
	)
	problems = append(problems, unmerged(err)...)
	at = maps.Clone(file.at)
	maps.Copy(at, vars.at)
	if path, what := cfg.conflict(); path != "" && err == nil {
		problem := at[path]
		problem.What = what
		problems = append(problems, problem)
	}
	if len(problems) > 0 {
		problems.sort()
		return Config{}, nil, problems
	}
	cfg.Path = src.path
	return cfg, at, nil
}

// merge lays the later over the earlier ones.
func merge(layers ...koanf.Provider) (Config, error) {
	k := koanf.New(".")
	for _, l := range layers {
		if err := k.Load(l, nil); err != nil {
			return Config{}, fmt.Errorf("can't be merged: %w", err)
		}
	}
	var cfg Config
	if err := k.Unmarshal("", &cfg); err != nil {
		return Config{}, fmt.Errorf("can't be merged: %w", err)
	}
	return cfg, nil
}

// unmerged is merge's error as a problem, of which there is none while every layer holds values of its keys' types.
func unmerged(err error) Problems {
	if err == nil {
		return nil
	}
	return Problems{{Source: "configuration", What: err.Error()}}
}

// source is the file to read.
type source struct {
	path  string // absolute; empty for none
	shown string // as the user named it
	by    string // what named it explicitly, with a space before it; empty where it was found
}

// find chooses the file. One that was named is taken whether it is there or not; of the others the first that is, a
// dangling link included, so that a file someone meant to have is never passed over in silence.
func find(flag string, environ []string, cwd string) source {
	absolute := func(path string) string {
		if filepath.IsAbs(path) {
			return filepath.Clean(path)
		}
		return filepath.Join(cwd, path)
	}
	if flag != "" {
		return source{absolute(flag), flag, " (named by --config)"}
	}
	if named := variable(environ, "CORTEX_CONFIG"); named != "" {
		return source{absolute(named), named, " (named by CORTEX_CONFIG)"}
	}
	found := []source{{path: absolute("cortex.toml"), shown: "cortex.toml"}}
	if dir := userDir(environ); dir != "" {
		path := filepath.Join(dir, "cortex", "cortex.toml")
		found = append(found, source{path: path, shown: path})
	}
	for _, s := range found {
		if _, err := os.Lstat(s.path); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return s
		}
	}
	return source{}
}

// userDir is $XDG_CONFIG_HOME, else ~/.config. A relative one counts as not set (XDG Base Directory Specification 0.8).
func userDir(environ []string) string {
	if dir := variable(environ, "XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return dir
	}
	if home := variable(environ, "HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".config")
	}
	return ""
}

// variable is the value of name in environ, the last one where it is there twice, as os/exec has it.
func variable(environ []string, name string) string {
	for _, entry := range slices.Backward(environ) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// read returns the content of the file, or why there is none.
func (s source) read() ([]byte, *Problem) {
	refuse := func(what string) ([]byte, *Problem) {
		return nil, &Problem{Source: s.shown, What: what + s.by}
	}
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return refuse("no such file")
	}
	if err != nil {
		return refuse("can't be read: " + bare(err))
	}
	defer func() { _ = f.Close() }() // only read from
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case errors.Is(err, syscall.EISDIR):
		return refuse("is a directory")
	case err != nil:
		return refuse("can't be read: " + bare(err))
	case len(content) > maxFile:
		return refuse(fmt.Sprintf("is larger than %d KiB: not a configuration", maxFile>>10))
	}
	return content, nil
}

// bare is err without the operation and the path, which the problem names already.
func bare(err error) string {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	return err.Error()
}

// readEnviron is the provider of the variables. While it is read it notes in l where each value stands, and adds what
// is wrong to problems.
func readEnviron(environ []string, l layer, problems *Problems) koanf.Provider {
	ordered := slices.Clone(environ)
	slices.SortStableFunc(ordered, func(a, b string) int {
		nameA, _, _ := strings.Cut(a, "=")
		nameB, _, _ := strings.Cut(b, "=")
		return strings.Compare(nameA, nameB)
	})
	return env.Provider(".", env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return ordered },
		TransformFunc: func(name, text string) (string, any) {
			rest := strings.TrimPrefix(name, envPrefix)
			if _, _, named := splitNamed(name); named || !strings.Contains(rest, envDelim) {
				return "", nil
			}
			at := Problem{Source: environment, Key: name}
			if !isVariableName(name) {
				at.Key = describe(name)
			}
			k, value, what := readVariable(name, text)
			if what != "" {
				at.What = what
				*problems = append(*problems, at)
				return "", nil
			}
			l.at[k.path()] = at
			return k.path(), value
		},
	})
}

// isVariableName keeps escape codes in a name off the terminal.
func isVariableName(name string) bool {
	return strings.IndexFunc(name, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) < 0
}

// readVariable finds the key that a variable sets and the value it gives it; problem says what is wrong.
func readVariable(name, text string) (k key, value any, problem string) {
	for _, k := range keys {
		if k.variable() == name {
			value, problem = k.read(k.fromText(text))
			return k, value, problem
		}
	}
	table, last, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(name, envPrefix)), envDelim)
	if t := nearestTable(table); t != "" {
		table = t
	}
	if k, ok := lookup(table, last); ok {
		return key{}, nil, "unknown key; did you mean " + k.variable() + "?"
	}
	var meant []string
	for _, k := range suggest(table, last).keys {
		meant = append(meant, k.variable())
	}
	if len(meant) == 0 {
		return key{}, nil, "unknown key"
	}
	return key{}, nil, "unknown key; did you mean " + strings.Join(meant, " or ") + "?"
}
