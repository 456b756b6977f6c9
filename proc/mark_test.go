package proc

import (
	"os"
	"testing"
)

// A mark is handed down to whoever sheds all else, and is nobody else's.
func TestMark(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	marker, err := Of(start(t, dir, "marking").Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	var child Ident
	eventually(t, "its child", func() bool {
		found, err := withCommand(dir)
		for _, s := range found {
			if s.PPID == marker.PID && marked(dir, s.PID) {
				child = s.Ident
			}
		}
		return err == nil && child.PID != 0
	})
	for _, c := range []struct {
		name string
		pid  int
		of   Ident
		want bool
	}{
		{"its own", marker.PID, marker, true},
		{"its child's", child.PID, marker, true},
		{"not the child's own", child.PID, child, false},
		{"not that of the same pid at another time", child.PID, Ident{marker.PID, marker.Start + 1}, false},
		{"not this process's", os.Getpid(), marker, false},
	} {
		if got, err := HasMark(c.pid, c.of); err != nil || got != c.want {
			t.Errorf("%s: %t, %v", c.name, got, err)
		}
	}
	if _, err := HasMark(1<<30, marker); err != ErrGone {
		t.Errorf("of nobody: %v", err)
	}
	if err := child.Signal(9); err != nil {
		t.Error(err)
	}
}

// Whoever is marked can still mark itself, also without privilege: later marks are lower.
func TestLaterMarksAreLower(t *testing.T) {
	t.Parallel()
	a, b, c := Ident{7, 100}.mark(), Ident{5, 101}.mark(), Ident{6, 101}.mark()
	if a <= b || b <= c || a >= 1<<62 {
		t.Errorf("%d, %d, %d", a, b, c)
	}
}
