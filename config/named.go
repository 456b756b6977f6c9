package config

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// families are the tables with a name of the user's below them: [projects.NAME] and the like.
var families = []string{"projects", "agents", "providers"}

// maxName is the longest name of a project, agent or provider, in bytes, as POST /dispatches has it.
const maxName = 256

func isFamily(table string) bool { return slices.Contains(families, table) }

func isKeyOf(family, name string) bool {
	_, ok := lookup(family, name)
	return ok
}

// badName is what is wrong with the NAME of a table; empty where nothing is.
func badName(name string) string {
	switch {
	case name == "":
		return "the name is empty"
	case len(name) > maxName:
		return fmt.Sprintf("the name has %d bytes, at most %d are allowed", len(name), maxName)
	case strings.ContainsFunc(name, unicode.IsControl):
		return "control characters are not allowed in the name"
	}
	return ""
}

// setNamed notes a value of [family.name]. The path is not one of koanf's: a name may have dots.
func (l layer) setNamed(family, name, key string, value any) {
	below := func(in map[string]any, key string) map[string]any {
		if in[key] == nil {
			in[key] = map[string]any{}
		}
		return in[key].(map[string]any)
	}
	below(below(l.named, family), name)[key] = value
}

// readNamed takes in the variables that set keys of families, such as CORTEX_PROJECTS__web__MAX_CONCURRENT: the name stands
// there as it is.
func (l layer) readNamed(environ []string) (problems Problems) {
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		family, called, ok := splitNamed(name)
		if !ok {
			continue
		}
		report := func(what string) {
			shown := name
			if !isVariableName(name) {
				shown = describe(name)
			}
			problems = append(problems, Problem{Source: environment, Key: shown, What: what})
		}
		at := strings.LastIndex(called, envDelim)
		if at < 0 {
			report("write " + envPrefix + strings.ToUpper(family) + envDelim + "NAME" + envDelim + "KEY")
			continue
		}
		called, last := called[:at], called[at+len(envDelim):]
		k, known := lookup(family, strings.ToLower(last))
		if !known || strings.ToUpper(last) != last {
			report("unknown key; [" + family + ".NAME] has " + strings.Join(namesOf(family), ", "))
			continue
		}
		if what := badName(called); what != "" {
			report(what)
			continue
		}
		value, what := k.read(k.fromText(text))
		if what != "" {
			report(what)
			continue
		}
		l.setNamed(family, called, k.name, value)
	}
	return problems
}

// splitNamed cuts CORTEX_PROJECTS__rest.
func splitNamed(variable string) (family, rest string, ok bool) {
	for _, family := range families {
		if rest, ok := strings.CutPrefix(variable, envPrefix+strings.ToUpper(family)+envDelim); ok {
			return family, rest, true
		}
	}
	return "", "", false
}
