package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"cortex/runner/record"
)

// What the daemon does not pass on of its own environment: it speaks of the daemon's terminal, service and configuration,
// and a dispatch that believed it would notify systemd or attach to a tmux in the daemon's name. A star stands for any end.
var withheld = []string{
	"TMUX*", "NOTIFY_*", "LISTEN_*", "WATCHDOG_*", "INVOCATION_ID", "JOURNAL_STREAM", "CORTEX_*",
}

// What the runner sets, so that nobody else may.
var reserved = []string{
	"CORTEX_DISPATCH_ID", "CORTEX_BEAD_ID", "CORTEX_PROJECT", "CORTEX_SESSION", "CORTEX_RUN_DIR", "CORTEX_ATTEMPT",
}

func isWithheld(name string) bool {
	return slices.ContainsFunc(withheld, func(pattern string) bool {
		prefix, star := strings.CutSuffix(pattern, "*")
		return name == pattern || star && strings.HasPrefix(name, prefix)
	})
}

// dispatchEnv is a dispatch's environment but for what the runner sets: the daemon's, less what is withheld, plus own,
// which wins. It is sorted by name.
func dispatchEnv(daemon []string, own map[string]string) []record.Raw {
	entries := map[string]string{}
	for _, entry := range daemon {
		name, value, ok := strings.Cut(entry, "=")
		if _, twice := entries[name]; ok && name != "" && !twice && !isWithheld(name) { // the first counts, as for getenv(3)
			entries[name] = value
		}
	}
	maps.Copy(entries, own)
	env := make([]record.Raw, 0, len(entries))
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		env = append(env, record.Raw(name+"="+entries[name]))
	}
	return env
}

func checkEnv(own map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(own)) {
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00"):
			return badValue("env", fmt.Sprintf("%q can't be the name of a variable", clip(name)))
		case slices.Contains(reserved, name):
			return badValue("env."+name, "cortex sets this one itself")
		}
	}
	return nil
}

// envNames are the names alone: values may be secrets, and are in no answer.
func envNames(env []record.Raw) []string {
	names := make([]string, 0, len(env))
	for _, entry := range env {
		name, _, _ := strings.Cut(string(entry), "=")
		names = append(names, strings.ToValidUTF8(name, "�"))
	}
	return names
}
