// Package cgroup makes control groups of version 2 below the caller's own, freezes and kills all that is in one, and proves that
// nothing is. Whoever is forked in a group is in it, whatever session it opens and whoever becomes its parent, and cgroup.kill ends
// all of it at once (Linux 5.14; Documentation/admin-guide/cgroup-v2.rst). It decides nothing about whose a group is, needs
// no controllers, and knows neither systemd nor dispatches.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnavailable: no cgroup2 is mounted, it may not be written to, or its kernel can't kill a group.
var ErrUnavailable = errors.New("no control group may be made")

// Group is a control group. Its methods may be called from anywhere.
type Group struct{ path string }

// Make makes a group of that name below the caller's own. Errors: ErrUnavailable, or that the name is taken.
func Make(name string) (*Group, error) {
	parent, err := own()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(parent, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	g := &Group{path}
	if _, err := os.Stat(filepath.Join(path, "cgroup.kill")); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrUnavailable, err), g.Remove())
	}
	return g, nil
}

// Find returns the group at an absolute path that was on record, where it is a group and still there.
func Find(path string) (*Group, bool) {
	var st unix.Statfs_t
	if !filepath.IsAbs(path) || unix.Statfs(path, &st) != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil, false
	}
	return &Group{filepath.Clean(path)}, true
}

// own is the folder of the caller's own group.
func own() (string, error) {
	membership, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return locate(string(membership), string(mounts))
}

// locate finds the group that a /proc/<pid>/cgroup names in the mounts of a /proc/<pid>/mountinfo. On a host whose controllers
// are those of version 1, version 2 is mounted elsewhere (/sys/fs/cgroup/unified).
func locate(membership, mounts string) (string, error) {
	group, ok := "", false
	for line := range strings.Lines(membership) {
		if rest, found := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); found {
			group, ok = rest, true
		}
	}
	if !ok || strings.HasSuffix(group, " (deleted)") {
		return "", fmt.Errorf("%w: this process is in none", ErrUnavailable)
	}
	for line := range strings.Lines(mounts) {
		// id parent major:minor root mountpoint options [optional]... - type source options (proc_pid_mountinfo(5))
		before, after, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		fields := strings.Fields(before)
		if len(fields) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		below, ok := under(group, unescape(fields[3]))
		if ok {
			return filepath.Join(unescape(fields[4]), below), nil
		}
	}
	return "", fmt.Errorf("%w: no cgroup2 is mounted that shows %s", ErrUnavailable, group)
}

// under is the group's path below the root that a mount shows.
func under(group, root string) (string, bool) {
	if root == "/" || group == root {
		return strings.TrimPrefix(group, strings.TrimSuffix(root, "/")), true
	}
	return strings.CutPrefix(group, root+"/")
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Path is the group's folder, absolute.
func (g *Group) Path() string { return g.path }

// Open opens the group's folder, for clone3(2) (CLONE_INTO_CGROUP).
func (g *Group) Open() (*os.File, error) { return os.Open(g.path) }

// Kill sends SIGKILL to all in the group and below it, those that are forked meanwhile included. A group that is gone has
// nobody.
func (g *Group) Kill() error {
	err := os.WriteFile(filepath.Join(g.path, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Empty reports whether nobody lives in the group or below it; zombies don't count. A group that is gone is empty.
func (g *Group) Empty() (bool, error) {
	text, err := os.ReadFile(filepath.Join(g.path, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return strings.Contains("\n"+string(text), "\npopulated 0\n"), nil
}

// look is how often AwaitEmpty looks: the kernel takes 0.5 ms to end one process, 10 ms for 55 that fork for ever.
const look = time.Millisecond

// AwaitEmpty returns when the group is empty, or with the cause of ctx's end.
func (g *Group) AwaitEmpty(ctx context.Context) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		if empty, err := g.Empty(); empty || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Freeze stops all in the group and below it, those that are forked meanwhile included, and returns when all have stopped
// (Linux 5.2; a process that was stopped by a signal already counts as that, and stays so after Thaw). Where it fails, with the
// cause of ctx's end if a process does not come to a stop, all is continued again.
func (g *Group) Freeze(ctx context.Context) error {
	if err := g.setFreeze("1"); err != nil {
		return err
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(filepath.Join(g.path, "cgroup.events"))
		if err != nil {
			return errors.Join(err, g.Thaw())
		}
		if strings.Contains("\n"+string(text), "\nfrozen 1\n") {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), g.Thaw())
		}
	}
}

// Thaw continues what Freeze has stopped. A group that is gone has nobody.
func (g *Group) Thaw() error { return ignoreGone(g.setFreeze("0")) }

func (g *Group) setFreeze(to string) error {
	return os.WriteFile(filepath.Join(g.path, "cgroup.freeze"), []byte(to), 0)
}

// Members are the pids in the group and below it.
func (g *Group) Members() ([]int, error) {
	var all []int
	err := filepath.WalkDir(g.path, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return ignoreGone(err)
		}
		text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for line := range strings.Lines(string(text)) {
			if pid, perr := strconv.Atoi(strings.TrimSpace(line)); perr == nil && pid > 0 { // 0: of another pid namespace
				all = append(all, pid)
			}
		}
		return ignoreGone(err)
	})
	return all, err
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Remove removes an empty group, with those that were made in it. One that is gone is no error.
func (g *Group) Remove() error {
	var folders []string
	err := filepath.WalkDir(g.path, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			folders = append(folders, path)
		}
		return ignoreGone(err)
	})
	for i := len(folders) - 1; i >= 0 && err == nil; i-- {
		err = ignoreGone(unix.Rmdir(folders[i]))
	}
	if err != nil {
		return fmt.Errorf("remove control group %s: %w", g.path, err)
	}
	return nil
}
