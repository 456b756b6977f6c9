package tmux

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
)

// userConfigs are configurations that change what new sessions, windows, panes and clients do.
var userConfigs = map[string]string{
	"none":                     "",
	"destroy-unattached":       "set -g destroy-unattached on",
	"remain-on-exit":           "set -g remain-on-exit on",
	"remain-on-exit failed":    "set -g remain-on-exit failed",
	"default-command":          "set -g default-command 'exit 7'",
	"default-shell":            "set -g default-shell /bin/false",
	"default-shell not there":  "set -g default-shell /nonexistent/sh",
	"base-index":               "set -g base-index 1\nset -g pane-base-index 1",
	"exit-empty":               "set -s exit-empty off",
	"exit-unattached":          "set -s exit-unattached on",
	"detach-on-destroy":        "set -g detach-on-destroy off\nnew-session -d -s other",
	"default-size":             "set -g default-size 33x11",
	"aggressive-resize":        "set -g aggressive-resize on",
	"window-size latest":       "set -g window-size latest",
	"window-size smallest":     "set -g window-size smallest",
	"update-environment":       "set -g update-environment 'FOO PATH HOME'",
	"lock-after-time":          "set -g lock-after-time 1\nset -g lock-command 'sleep 100'",
	"no prefix":                "set -g prefix None\nset -g prefix2 None",
	"automatic-rename":         "set -g automatic-rename on\nset -g allow-rename on\nset -g set-titles on",
	"history":                  "set -g history-limit 1000000",
	"syntax error":             "this is no command\nset -g nosuchoption on\n\"",
	"opens a session":          "new-session -s main\nnew-session -d -s work",
	"opens ours":               "new-session -d -s cortex\nnew-session -d -s ctx-p-b-9",
	"slow":                     "run-shell 'sleep 0.4'\nif-shell 'sleep 0.1' 'set -g status off'",
	"failing shell":            "run-shell 'echo loud; exit 3'",
	"session-created renames":  "set-hook -g session-created 'rename-session foo'",
	"after-new-session rename": "set-hook -g after-new-session 'rename-session \"#{session_name}-mine\"'",
	"hooks set windows":        "set-hook -g after-new-session 'set-option -w remain-on-exit on'\nset-hook -g window-linked 'set -w remain-on-exit on'",
	"hooks on everything": "set-hook -g after-set-option 'display-message hi'\nset-hook -g after-list-sessions 'display-message -p noise'\n" +
		"set-hook -g after-kill-session 'display-message -p noise'\nset-hook -g after-display-message 'list-sessions'\nset-hook -g client-attached 'list-sessions'",
	"a hook that fails":  "set-hook -g after-new-session 'select-window -t 99'\nset-hook -g session-created 'nosuch'",
	"environment":        "set-environment -g TMUX /nowhere\nset-environment -g PATH /usr/bin:/bin",
	"everything at once": "set -g destroy-unattached on\nset -g remain-on-exit on\nset -g detach-on-destroy off\nset -g default-command false\nset -g base-index 3\nset -g window-size smallest\nset -s exit-unattached on",
}

// With any of them a session is opened, has the size asked for, lives while its command does, goes with it, and can be ended.
func TestUserConfigs(t *testing.T) {
	t.Parallel()
	for _, name := range slices.Sorted(maps.Keys(userConfigs)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, userConfigs[name])
			c := w.client("/owner")
			s, err := c.NewSession(context.Background(), New{Name: "ctx-p-b-1", Argv: sleeping, Tag: "1", Columns: 120, Rows: 40})
			if err != nil {
				t.Fatal(err)
			}
			got := w.tmux("display-message", "-p", "-t", s.ID+":",
				"#{session_id} #{window_width}x#{window_height} #{pane_dead} #{pane_start_command}")
			got, _, _ = strings.Cut(got, "\n") // a hook may say more
			if want := s.ID + " 120x40 0 sleep 1000"; strings.ReplaceAll(got, `"`, "") != want {
				t.Errorf("the session is %q, want %q", got, want)
			}
			short, err := c.NewSession(context.Background(), New{Name: "ctx-p-b-12", Argv: func(string) []string { return []string{"true", "x"} }})
			if err != nil && !strings.Contains(name, "rename") { // renamed, and already gone when its options are set: may be an error
				t.Fatal(err)
			}
			gone(t, c, short)
			if err := c.Kill(context.Background(), s); err != nil {
				t.Fatal(err)
			}
			gone(t, c, s)
			if check := c.Check(); !check.OK != strings.Contains(userConfigs[name], "exit-unattached on") {
				t.Errorf("check: %+v", check)
			}
		})
	}
}

func gone(t *testing.T, c *Client, s Session) {
	t.Helper()
	eventually(t, "session "+s.Name+" to be gone", func() bool {
		list, err := c.Sessions(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(list, func(l Session) bool { return l.ID == s.ID && l.Server == s.Server })
	})
}

// A configuration that ends every new session can't be worked with: the error says that, and no server is left.
func TestHookThatKillsSessions(t *testing.T) {
	t.Parallel()
	for _, hook := range []string{"after-new-session", "session-created"} {
		t.Run(hook, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "set-hook -g "+hook+" kill-session")
			c := w.client("/owner")
			_, err := c.NewSession(context.Background(), New{Name: "x", Argv: sleeping})
			if !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrLostReply) {
				t.Fatalf("got %v", err)
			}
			t.Log(err, c.Check())
			if hook == "after-new-session" && c.Check().OK {
				t.Error("the check says that all is well")
			}
		})
	}
}

// A client that a hook moves to the user's session ends; the session does not.
func TestHookThatMovesTheClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "new-session -d -s mine\nset-hook -g client-attached 'switch-client -t mine'\nset-hook -g after-new-session 'switch-client -t mine'")
	c := w.client("/owner")
	s, err := c.NewSession(context.Background(), New{Name: "x", Argv: sleeping})
	if err == nil {
		t.Log("worked all the same", s)
	} else if !errors.Is(err, ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if names := w.names(); !slices.Contains(names, "mine") {
		t.Errorf("the user's session is gone: %q", names)
	}
}

// Nothing that belongs to the whole server, or to a session of the user's, changes.
func TestNothingGlobalChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "new-session -d -s mine\nset -g status-left hello\nset-hook -g client-attached 'display-message hi'")
	start := w.command("start-server")
	start.Args = slices.DeleteFunc(start.Args, func(a string) bool { return a == "-N" })
	if out, err := start.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	look := func() string {
		var all []string
		for _, args := range [][]string{
			{"show-options", "-g"}, {"show-options", "-s"}, {"show-options", "-gw"}, {"show-hooks", "-g"}, {"show-hooks", "-gw"},
			{"show-environment", "-g"}, {"list-keys"}, {"show-options", "-t", "mine"}, {"show-options", "-w", "-t", "mine"},
			{"show-environment", "-t", "mine"}, {"show-hooks", "-t", "mine"}, {"list-windows", "-t", "mine"}, {"show-buffer"},
		} {
			out, err := w.command(args...).CombinedOutput()
			all = append(all, strings.Join(args, " "), string(out))
			if err != nil {
				all = append(all, err.Error())
			}
		}
		return strings.Join(all, "\n")
	}
	before := look()
	c := w.client("/owner")
	s := w.start(c, "x")
	if during := look(); during != before {
		t.Errorf("while connected:\n%s\nbefore:\n%s", during, before)
	}
	if err := c.Kill(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if after := look(); after != before {
		t.Errorf("afterwards:\n%s\nbefore:\n%s", after, before)
	}
	if names := w.names(); !slices.Equal(names, []string{"mine"}) {
		t.Errorf("sessions %q are left", names)
	}
}
