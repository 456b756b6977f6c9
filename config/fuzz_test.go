package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/structs"
	"github.com/pelletier/go-toml/v2"
)

// FuzzLoad holds Load to this for any text: it never panics; each problem is one printable line that names the file and is in
// it; the same text has the same problems; and where there are none, go-toml itself takes the text for TOML, which has no
// table or key that is not known, and every setting is within its limits.
func FuzzLoad(f *testing.F) {
	f.Add(everyKey)
	f.Add("[scheduler]\nmax_concurrent_dispatches = 15")
	f.Add("log = {level = 'warn'}\nscheduler.max_concurrent_dispatches = +0x1")
	f.Add("[api]\nallowed_hosts = [\n\"a\" \"b\"\n]\n[log\nlevel=\n\"\"\"\n\xff")
	f.Add("[[x]]\na=1\n[[x.y]]\n[x]\n[a.b]\n[a]\n= \n\"\\uD800\"=1\n")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 {
			return
		}
		layer, problems := readTOML("f.toml", []byte(text))
		cfg, err := merge(structs.Provider(Defaults(), "koanf"), confmap.Provider(layer.values, "."),
			confmap.Provider(layer.named, ""))
		if err != nil {
			t.Fatalf("values that can't be merged: %v", err)
		}
		for _, p := range problems {
			line := p.String()
			if !strings.HasPrefix(line, "f.toml:") || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) ||
				p.Line < 1 || p.Line > strings.Count(text, "\n")+1 || p.What == "" || len(line) > 1000+2*len(text) {
				t.Errorf("problem %q", line)
			}
		}
		if _, again := readTOML("f.toml", []byte(text)); !slices.Equal(again, problems) {
			t.Errorf("once %q, then %q", problems, again)
		}
		if len(problems) > 0 {
			return
		}
		var tree map[string]any
		if err := toml.Unmarshal([]byte(strings.TrimPrefix(text, "\ufeff")), &tree); err != nil {
			t.Fatalf("no problem found, but go-toml says %v", err)
		}
		for table, inner := range tree {
			inner, ok := inner.(map[string]any)
			if !ok || !slices.Contains(tables, table) {
				t.Errorf("no problem with %q", table)
			}
			named := map[string]any{"": inner}
			if isFamily(table) {
				named = inner
			}
			for _, keys := range named {
				for name := range keys.(map[string]any) {
					if _, ok := lookup(table, name); !ok {
						t.Errorf("no problem with %q in [%s]", name, table)
					}
				}
			}
		}
		for path := range layer.values {
			table, name, _ := strings.Cut(path, ".")
			if inner, ok := tree[table].(map[string]any); !ok || inner[name] == nil {
				t.Errorf("%s is set, but not in the file", path)
			}
		}
		checkLimits(t, cfg)
	})
}

// checkLimits holds each field of cfg to the limits of its key.
func checkLimits(t *testing.T, cfg Config) {
	t.Helper()
	for _, k := range keys {
		section := byTag(t, reflect.ValueOf(cfg), k.table)
		if section.Kind() == reflect.Map {
			for _, bound := range section.Seq2() {
				if value := byTag(t, bound, k.name).Interface(); !k.ok(value) {
					t.Errorf("%s is %v", k.path(), value)
				}
			}
			continue
		}
		value := byTag(t, section, k.name).Interface()
		entries := []any{value}
		if list, ok := value.([]string); ok {
			entries = nil
			for _, e := range list {
				entries = append(entries, e)
			}
		}
		for _, e := range entries {
			if !k.ok(e) {
				t.Errorf("%s is %v", k.path(), e)
			}
		}
	}
}
