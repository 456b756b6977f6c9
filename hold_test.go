package cortex

import "testing"

func TestValidScope(t *testing.T) {
	t.Parallel()
	for scope, want := range map[string]bool{
		"all": true, "project:web": true, "agent:a": true, "provider:p:eu": true, "bead:cortex-abc.123": true, "bead: ": true,
		"": false, "All": false, "all:": false, "all:x": false, "project": false, "project:": false, "projects:web": false, ":web": false,
		"Project:web": false, " project:web": false, "session:x": false, "dispatch:12": true, "dispatch:0": false, "dispatch:-1": false, "dispatch:012": false, "dispatch:x": false, "dispatch:": false, "web": false,
	} {
		if got := ValidScope(scope); got != want {
			t.Errorf("%q: %v", scope, got)
		}
	}
}

// What may be set must also cover something.
func TestCovers(t *testing.T) {
	t.Parallel()
	d := Dispatch{ID: 12, Project: "web", Agent: "a", Provider: "p:eu", BeadID: "b"}
	for scope, want := range map[string]bool{
		"all": true, "project:web": true, "agent:a": true, "provider:p:eu": true, "bead:b": true,
		"dispatch:12": true, "dispatch:1": false, "project:we": false, "project:Web": false, "agent:web": false, "provider:p": false, "bead:": false, "project": false,
	} {
		if got := (Hold{Scope: scope}).Covers(d); got != want {
			t.Errorf("%s covers it: %v", scope, got)
		}
	}
	if (Hold{Scope: "agent:a"}).Covers(Dispatch{}) {
		t.Error("covers what names no agent")
	}
}
