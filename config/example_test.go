package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const exampleFile = "../cortex.example.toml"

var (
	keyLine    = regexp.MustCompile(`(?m)^# ([a-z_]+) = `)
	headerLine = regexp.MustCompile(`(?m)^# (\[[a-z]+\.[a-z]+\])$`)
)

func example(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// fields lists table.key for each field of Config, by its tags.
func fields() (paths []string) {
	for table := range reflect.TypeFor[Config]().Fields() {
		if table.Tag.Get("koanf") == "-" {
			continue
		}
		section, between := table.Type, "."
		if section.Kind() == reflect.Map {
			section, between = section.Elem(), ".NAME."
		}
		for f := range section.Fields() {
			paths = append(paths, table.Tag.Get("koanf")+between+f.Tag.Get("koanf"))
		}
	}
	return paths
}

func TestEveryFieldIsAKey(t *testing.T) {
	t.Parallel()
	var names []string
	for _, k := range keys {
		names = append(names, k.path())
	}
	if got := fields(); !reflect.DeepEqual(got, names) {
		t.Errorf("Config has %v\nkeys.go  %v", got, names)
	}
}

// TestExampleHasEveryKeyWithItsDefault takes the "#" from every key of the example: all keys must be there, once, in
// their tables, and the values must be the defaults.
func TestExampleHasEveryKeyWithItsDefault(t *testing.T) {
	t.Parallel()
	text := headerLine.ReplaceAllString(keyLine.ReplaceAllString(example(t), "$1 = "), "$1")
	layer, problems := readTOML("cortex.example.toml", []byte(text))
	for family, names := range layer.named { // each has one table there
		for _, set := range names.(map[string]any) {
			for key, value := range set.(map[string]any) {
				layer.values[family+".NAME."+key] = value
			}
		}
	}
	for _, p := range problems {
		t.Error(p)
	}
	defaults := reflect.ValueOf(Defaults())
	for _, path := range fields() {
		value, ok := layer.values[path]
		if !ok {
			t.Errorf("%s is not in the example", path)
			continue
		}
		table, name, _ := strings.Cut(path, ".")
		section := byTag(t, defaults, table)
		if section.Kind() == reflect.Map {
			section, name = reflect.Zero(section.Type().Elem()), strings.TrimPrefix(name, "NAME.")
		}
		want := byTag(t, section, name).Interface()
		if !reflect.DeepEqual(value, want) {
			t.Errorf("%s is %v in the example, but its default is %v", path, value, want)
		}
	}
	if n := len(layer.values); n != len(fields()) {
		t.Errorf("the example has %d keys, Config %d", n, len(fields()))
	}
}

func byTag(t *testing.T, v reflect.Value, tag string) reflect.Value {
	t.Helper()
	for f, field := range v.Fields() {
		if f.Tag.Get("koanf") == tag {
			return field
		}
	}
	t.Fatalf("no field %s", tag)
	return reflect.Value{}
}

func TestExampleAsItIsGivesDefaults(t *testing.T) {
	t.Parallel()
	path, err := filepath.Abs(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(path, nil, "/")
	if err != nil {
		t.Fatal(err)
	}
	want := Defaults()
	want.Path = path
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got %+v, want %+v", cfg, want)
	}
}

// TestExampleWithALineAppended does what operators do: echo "max_concurrent_dispatches = 15" >> cortex.toml.
func TestExampleWithALineAppended(t *testing.T) {
	t.Parallel()
	dir := write(t, "cortex.toml", example(t)+"# Updated rate limits\nmax_concurrent_dispatches = 15\n")
	cfg, err := Load("cortex.toml", nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Scheduler.MaxConcurrentDispatches; got != 15 {
		t.Errorf("max_concurrent_dispatches is %d, want 15", got)
	}
}

func TestExampleShowsEveryTable(t *testing.T) {
	t.Parallel()
	var shown []string
	for _, m := range regexp.MustCompile(`(?m)^(?:# )?\[([a-z]+)(?:\.[a-z]+)?\]$`).FindAllStringSubmatch(example(t), -1) {
		shown = append(shown, m[1])
	}
	if !slices.Equal(shown, tables) {
		t.Errorf("the example has %v, want %v with scheduler last", shown, tables)
	}
}
