package config

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// expression takes in one header or one key with its value. from is the offset where the parser's text begins.
func (d *document) expression(n *unstable.Node, from int) {
	it := n.Key()
	it.Next()
	line := d.lineAt(from + int(it.Node().Raw.Offset))
	d.last = line
	switch {
	case n.Kind != unstable.KeyValue:
		d.header(names(n), n.Kind == unstable.ArrayTable, line)
	case !d.lost:
		d.keyValue(d.table, n, line)
	}
}

// names is the parts of a header's or key's name.
func names(n *unstable.Node) []string {
	var parts []string
	for it := n.Key(); it.Next(); {
		parts = append(parts, string(it.Node().Data))
	}
	return parts
}

// report adds a problem with a key or a table.
func (d *document) report(line int, name, what string) {
	if !d.broken[line] {
		d.problems = append(d.problems, Problem{Source: d.source, Line: line, Key: name, What: what})
	}
}

// header takes in [name], or [[name]] where array is true.
func (d *document) header(path []string, array bool, line int) {
	d.table, d.lost = path, false
	name := display(path)
	shown := "[" + name + "]"
	isKey := false
	if len(path) == 2 && !isFamily(path[0]) {
		_, isKey = lookup(path[0], path[1])
	}
	if array { // each [[name]] begins a new one
		maps.DeleteFunc(d.set, func(k string, _ int) bool { return strings.HasPrefix(k, name+".") })
	}
	named := len(path) == 2 && isFamily(path[0])
	known := named || len(path) == 1 && slices.Contains(tables, path[0])
	first, again := d.tables[name]
	switch {
	case isKey:
		d.report(line, shown, fmt.Sprintf("is a key, not a table: write %s = … below [%s]", path[1], path[0]))
	case !known && !again:
		d.report(line, shown, unknownTable(path))
	case known && array:
		d.report(line, "[["+name+"]]", "must be a single table: write "+shown)
	case named && !again && badName(path[1]) != "":
		d.report(line, shown, badName(path[1]))
	case again && !array:
		d.report(line, shown, fmt.Sprintf("this table is there twice, first in line %d: keep its keys together there", first))
	}
	if !again {
		d.tables[name] = line
	}
}

// unknownTable says what may have been meant with the header of a table that there isn't.
func unknownTable(path []string) string {
	switch t := nearestTable(path[0]); {
	case isFamily(t) && len(path) < 3:
		return "unknown table; did you mean [" + t + ".NAME]?"
	case t != "" && len(path) == 1:
		return "unknown table; did you mean [" + t + "]?"
	}
	shown := make([]string, len(tables))
	for i, t := range tables {
		if shown[i] = "[" + t + "]"; isFamily(t) {
			shown[i] = "[" + t + ".NAME]"
		}
	}
	return "unknown table; there are " + strings.Join(shown, ", ")
}

// keyValue takes in a key below the table prefix.
func (d *document) keyValue(prefix []string, n *unstable.Node, line int) {
	path := append(slices.Clone(prefix), names(n)...)
	v := n.Value()
	top := len(prefix) == 0 && slices.Contains(tables, path[0])
	named := len(path) == 2 && isFamily(path[0])
	switch {
	case named && v.Kind == unstable.InlineTable: // web = { … } below [projects]
		d.inlineTable(path, v, line)
		return
	case named && isKeyOf(path[0], path[1]):
		d.report(line, display(path), "belongs in the table of one name: write ["+path[0]+".NAME] and the key below")
		return
	case named:
		d.report(line, display(path), fmt.Sprintf("is a table, not a value: write [%s] and its keys below", display(path)))
		return
	case top && len(path) == 1 && v.Kind == unstable.InlineTable: // scheduler = { … }
		d.inlineTable(path, v, line)
		return
	case top && len(path) == 1:
		d.report(line, display(path), fmt.Sprintf("is a table, not a value: write [%s] and its keys below", path[0]))
		return
	case top: // scheduler.max_… = 1
		if d.inline[path[0]] {
			d.report(line, display(path), fmt.Sprintf("[%s] is closed in line %d: put the key there", path[0], d.tables[path[0]]))
		} else if _, again := d.tables[path[0]]; !again {
			d.tables[path[0]] = line
		}
	}
	d.assign(path, value(v), line)
}

// inlineTable takes in the keys of name = { … }.
func (d *document) inlineTable(path []string, v *unstable.Node, line int) {
	name := display(path)
	if first, again := d.tables[name]; again {
		d.report(line, "["+name+"]",
			fmt.Sprintf("this table is there twice, first in line %d: keep its keys together there", first))
	} else {
		d.tables[name] = line
		d.inline[name] = true
	}
	for it := v.Children(); it.Next(); {
		d.keyValue(path, it.Node(), line)
	}
}

// value is what stands in the file as key.read takes it.
func value(n *unstable.Node) any {
	switch n.Kind {
	case unstable.String:
		return string(n.Data)
	case unstable.Bool:
		return string(n.Data) == "true"
	case unstable.Integer:
		var v struct{ N int64 }
		if err := toml.Unmarshal(append([]byte("N = "), n.Data...), &v); err != nil {
			return odd(string(n.Data)) // 0123, 1__0, or beyond 64 bits
		}
		return v.N
	case unstable.Array:
		entries := []any{}
		for it := n.Children(); it.Next(); {
			if it.Node().Kind == unstable.Array {
				entries = append(entries, odd("a list"))
				continue
			}
			entries = append(entries, value(it.Node()))
		}
		return entries
	case unstable.InlineTable:
		return odd("a table")
	default: // floats, dates, times
		return odd(string(n.Data))
	}
}

// assign sets the key of that path, or says why it can't.
func (d *document) assign(path []string, raw any, line int) {
	name := display(path)
	if first, again := d.set[name]; again {
		d.report(line, name, fmt.Sprintf("set twice, first in line %d", first))
	} else {
		d.set[name] = line
	}
	if len(path) == 3 && isFamily(path[0]) {
		d.assignNamed(path, raw, line)
		return
	}
	if len(path) == 2 {
		if k, ok := lookup(path[0], path[1]); ok {
			if value, what := k.read(raw); what != "" {
				d.report(line, name, what)
			} else {
				d.values[k.path()] = value
				d.at[k.path()] = Problem{Source: d.source, Line: line, Key: name}
			}
			return
		}
	}
	d.unknown(path, raw, line)
}

// assignNamed is assign for a key of [family.name].
func (d *document) assignNamed(path []string, raw any, line int) {
	k, ok := lookup(path[0], path[2])
	if !ok {
		near := nearest(path[2], func(k key) bool { return k.table == path[0] })
		what := "unknown key; [" + path[0] + ".NAME] has " + strings.Join(namesOf(path[0]), ", ")
		if len(near) == 1 {
			what = "unknown key; did you mean " + near[0].name + "?"
		}
		d.report(line, display(path), what)
		return
	}
	if what := badName(path[1]); what != "" {
		d.report(line, display(path), what)
		return
	}
	value, what := k.read(raw)
	if what != "" {
		d.report(line, display(path), what)
		return
	}
	d.setNamed(path[0], path[1], k.name, value)
}

// unknown says what may have been meant by a key that there isn't, and what would be wrong with its value there.
func (d *document) unknown(path []string, raw any, line int) {
	last := path[len(path)-1]
	table, reported := "", false // reported: with its header
	if len(path) > 1 {
		table = cmp.Or(nearestTable(path[0]), path[0])
		_, reported = d.tables[display(path[:len(path)-1])]
	}
	if reported && isFamily(table) && len(path) == 3 { // [project.web]
		return
	}
	if k, ok := lookup(table, last); ok && len(path) == 2 { // right below a misspelt header
		if !reported {
			d.report(line, display(path), "unknown key; did you mean "+k.path()+"?")
		}
		d.checkMeant(path, k, raw, line)
		return
	}
	s := suggest(table, last)
	if len(s.keys) == 0 && reported && (len(path) > 2 || !slices.Contains(tables, table)) {
		return
	}
	d.report(line, display(path), s.phrase(path, table))
	if len(s.keys) == 1 {
		d.checkMeant(path, s.keys[0], raw, line)
	}
}

// checkMeant reports what would be wrong with the value, too, were the key where it belongs.
func (d *document) checkMeant(path []string, k key, raw any, line int) {
	if _, what := k.read(raw); what != "" {
		d.report(line, display(path), what)
	}
}

// phrase says in words what s suggests for the unknown key path; table is the known table it may be meant for.
func (s suggestion) phrase(path []string, table string) string {
	var belongs, meant []string
	for _, k := range s.keys {
		belongs = append(belongs, "["+k.table+"]")
		if k.table == table {
			meant = append(meant, k.name)
		} else {
			meant = append(meant, k.name+" in ["+k.table+"]")
		}
	}
	what := "unknown key"
	if len(path) == 1 {
		what = "outside of any table"
	}
	switch {
	case s.exact:
		if len(path) > 1 {
			what = "not a key of [" + display(path[:len(path)-1]) + "]"
		}
		return what + "; it belongs in " + strings.Join(belongs, " or ")
	case len(meant) > 0:
		return what + "; did you mean " + strings.Join(meant, " or ") + "?"
	case slices.Contains(tables, table):
		return what + "; [" + table + "] has " + strings.Join(namesOf(table), ", ")
	default:
		return what
	}
}

// namesOf lists the keys of a table.
func namesOf(table string) (names []string) {
	for _, k := range keys {
		if k.table == table {
			names = append(names, k.name)
		}
	}
	return names
}

// bareKey is what TOML lets stand without quotes.
var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// display joins the parts of a name as one would write it, quoted where that is needed: no part can look like two, or
// bring escape codes to a terminal.
func display(path []string) string {
	parts := make([]string, len(path))
	for i, p := range path {
		if parts[i] = p; !bareKey.MatchString(p) {
			parts[i] = strconv.Quote(p)
		}
	}
	return strings.Join(parts, ".")
}
