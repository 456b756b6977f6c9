package config

import (
	"strings"
	"unicode/utf8"
)

// longestName bounds the names that are compared, since that takes time and memory by the square.
const longestName = 64

// suggestion is what the writer of an unknown name may have meant.
type suggestion struct {
	exact bool  // the very name, in other tables
	keys  []key // best ones, all equally good; empty where nothing is like it
}

// suggest looks for the key that name in table was meant to be: the same name in another table, else one like it in
// the same table, else one like it anywhere. table is empty for a name outside of any.
func suggest(table, name string) suggestion {
	var exact []key
	for _, k := range keys {
		if k.name == name && k.table != table {
			exact = append(exact, k)
		}
	}
	if len(exact) > 0 {
		return suggestion{exact: true, keys: exact}
	}
	if near := nearest(name, func(k key) bool { return k.table == table }); len(near) > 0 {
		return suggestion{keys: near}
	}
	return suggestion{keys: nearest(name, func(k key) bool { return k.table != table })}
}

// nearest returns the keys among those wanted whose names are least far from name, and near enough to be meant.
func nearest(name string, wanted func(key) bool) []key {
	var best []key
	least := tolerance(name) + 1
	for _, k := range keys {
		if !wanted(k) {
			continue
		}
		switch d := distance(name, k.name); {
		case d < least:
			best, least = []key{k}, d
		case d == least && len(best) > 0:
			best = append(best, k)
		}
	}
	return best
}

// nearestTable returns the table that name was meant to be, or "".
func nearestTable(name string) string {
	best, least := "", tolerance(name)+1
	for _, t := range tables {
		if d := distance(name, t); d < least {
			best, least = t, d
		}
	}
	return best
}

// tolerance is how many slips are taken for a misspelling: one in three characters, and none in a name too long.
func tolerance(name string) int {
	if len(name) > longestName {
		return -1
	}
	return max(1, utf8.RuneCountInString(name)/3)
}

// distance counts the slips between two names: characters added, left out, mistaken or swapped with the next (optimal
// string alignment). Case, and dashes for underscores, count for nothing.
func distance(a, b string) int {
	if len(a) > longestName {
		return longestName
	}
	fold := func(s string) []rune { return []rune(strings.ReplaceAll(strings.ToLower(s), "-", "_")) }
	x, y := fold(a), fold(b)
	rows := make([][]int, len(x)+1)
	for i := range rows {
		rows[i] = make([]int, len(y)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			mistaken := 1
			if x[i-1] == y[j-1] {
				mistaken = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+mistaken)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(x)][len(y)]
}
