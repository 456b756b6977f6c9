package tmux

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
)

// Where a name is taken, by whomever, the next free number is appended, and the command is told.
func TestNamesTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "new-session -d -s ctx-p-b-1\nnew-session -d -s ctx-p-b-1-3")
	c := w.client("/owner")
	var told []string
	for _, want := range []string{"ctx-p-b-1-2", "ctx-p-b-1-4", "ctx-p-b-1-5"} {
		s, err := c.NewSession(context.Background(), New{Name: "ctx-p-b-1", Argv: func(name string) []string {
			told = append(told, name)
			return []string{"sleep", "1000"}
		}})
		if err != nil {
			t.Fatal(err)
		}
		if s.Name != want || told[len(told)-1] != want {
			t.Errorf("got %s, told %s, want %s", s.Name, told[len(told)-1], want)
		}
	}
}

// A name that begins as another's does is another name.
func TestPrefixIsAnotherName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	c := w.client("/owner")
	twelve := w.start(c, "ctx-p-b-12")
	one := w.start(c, "ctx-p-b-1")
	if one.Name != "ctx-p-b-1" || one.ID == twelve.ID {
		t.Errorf("got %+v beside %+v", one, twelve)
	}
	if err := c.Kill(context.Background(), one); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(context.Background(), one); err != nil {
		t.Errorf("killed twice: %v", err)
	}
	all := mustSessions(t, c)
	if _, there := all["ctx-p-b-1"]; there || all["ctx-p-b-12"] != twelve {
		t.Errorf("left are %+v", all)
	}
}

// Many at once get many sessions, whatever they want to be called.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "set -g destroy-unattached on")
	c := w.client("/owner")
	const many = 40
	got := make([]Session, many)
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() {
			name := "same"
			if i%2 == 0 {
				name = fmt.Sprint("other-", i)
			}
			s, err := c.NewSession(context.Background(), New{Name: name, Argv: sleeping, Tag: fmt.Sprint(i)})
			if err != nil {
				t.Error(err)
			}
			got[i] = s
		})
	}
	wg.Wait()
	all := mustSessions(t, c)
	for _, s := range got {
		if all[s.Name] != s {
			t.Errorf("opened %+v, listed %+v", s, all[s.Name])
		}
		wg.Go(func() {
			if err := c.Kill(context.Background(), s); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if all := mustSessions(t, c); len(all) != 1 {
		t.Errorf("left are %+v", all)
	}
}

func TestKillRenamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	c := w.client("/owner")
	s := w.start(c, "ctx-a")
	w.tmux("rename-session", "-t", "=ctx-a", "mine now")
	w.tmux("new-session", "-d", "-s", "ctx-a")
	if err := c.Kill(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	all := mustSessions(t, c)
	if _, there := all["mine now"]; there {
		t.Error("the session lives on under its new name")
	}
	if _, there := all["ctx-a"]; !there {
		t.Error("the session that took the name is gone")
	}
}

func TestKillOnlyTheOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	c := w.client("/owner")
	s := w.start(c, "x")
	for what, change := range map[string]func(*Session){
		"pid":   func(s *Session) { s.Server.PID++ },
		"start": func(s *Session) { s.Server.Start++ },
		"id":    func(s *Session) { s.ID = "$4711" },
	} {
		other := s
		change(&other)
		if err := c.Kill(context.Background(), other); err != nil {
			t.Errorf("other %s: %v", what, err)
		}
	}
	for what, change := range map[string]func(*Session){
		"owner": func(s *Session) { s.Owner = "/other" },
		"tag":   func(s *Session) { s.Tag = "other" },
	} {
		other := s
		change(&other)
		if err := c.Kill(context.Background(), other); !errors.Is(err, ErrNotOurs) {
			t.Errorf("other %s: %v", what, err)
		}
	}
	if got := mustSessions(t, c)["x"]; got != s {
		t.Errorf("listed %+v, want %+v", got, s)
	}
}

// Without a server there is nothing, and looking brings none.
func TestLookingStartsNoServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	c := w.client("/owner")
	if list, err := c.Sessions(context.Background()); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v", list, err)
	}
	if err := c.Kill(context.Background(), Session{Server: Server{PID: 1, Start: 1}, ID: "$1", Name: "x"}); err != nil {
		t.Error(err)
	}
	if check := c.Check(); !check.OK {
		t.Errorf("%+v", check)
	}
	if left := w.processes(); len(left) != 0 {
		t.Errorf("processes %v were started", left)
	}
	w.start(c, "x")
	if all := mustSessions(t, c); len(all) != 2 {
		t.Errorf("got %+v", all)
	}
}

func TestRefusedBeforehand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	c := w.client("/owner")
	for _, n := range []New{
		{Name: "", Argv: sleeping}, {Name: "a.b", Argv: sleeping}, {Name: "a:b", Argv: sleeping}, {Name: "-a", Argv: sleeping}, {Name: "a b", Argv: sleeping},
		{Name: "$1", Argv: sleeping}, {Name: "a\nb", Argv: sleeping}, {Name: "ä", Argv: sleeping},
		{Name: "x", Argv: func(string) []string { return nil }},
		{Name: "x", Argv: func(string) []string { return []string{"sleep 1000"} }},
		{Name: "x", Argv: func(string) []string { return []string{"echo", "a\x00b"} }},
	} {
		if s, err := c.NewSession(context.Background(), n); err == nil {
			t.Errorf("%q %q was opened: %+v", n.Name, n.Argv("x"), s)
		}
	}
	if left := w.processes(); len(left) != 0 {
		t.Errorf("processes %v were started", left)
	}
}

// A command that can't be executed is tmux's to report: the session opens and is gone.
func TestCommandNotThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "set -g remain-on-exit on")
	c := w.client("/owner")
	s, err := c.NewSession(context.Background(), New{Name: "x", Argv: func(string) []string { return []string{"/nonexistent/runner", "x"} }})
	if err != nil {
		t.Fatal(err)
	}
	gone(t, c, s)
}

// Two homes on one server: a control session each, and none sees the other's as its own.
func TestTwoOwners(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	a, b := w.client("/a"), w.client("/b")
	sa, sb := w.start(a, "x"), w.start(b, "x")
	if sa.Owner != "/a" || sb.Owner != "/b" || sa.Name != "x" || sb.Name != "x-2" || sa.Server != sb.Server {
		t.Errorf("got %+v and %+v", sa, sb)
	}
	names := w.names()
	slices.Sort(names)
	if want := []string{"cortex", "cortex-2", "x", "x-2"}; !slices.Equal(names, want) {
		t.Errorf("sessions are %q, want %q", names, want)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Kill(context.Background(), sa); err != nil { // told to, with a's owner: it is what is on record
		t.Error(err)
	}
	names = w.names()
	slices.Sort(names)
	if want := []string{"cortex-2", "x-2"}; !slices.Equal(names, want) {
		t.Errorf("sessions are %q, want %q", names, want)
	}
}
