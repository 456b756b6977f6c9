package pane

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"cortex/cgroup"
	"cortex/internal/rlimit"
	"cortex/runner/record"
)

// environment is the agent's: the spec's, and who it is.
func (r *runner) environment() []string {
	own := []string{
		"CORTEX_DISPATCH_ID=" + strconv.FormatInt(r.opts.ID, 10),
		"CORTEX_BEAD_ID=" + r.spec.Bead,
		"CORTEX_PROJECT=" + r.spec.Project,
		"CORTEX_SESSION=" + r.opts.Session,
		"CORTEX_RUN_DIR=" + r.dir.Path(),
		"CORTEX_ATTEMPT=" + strconv.Itoa(r.opts.Attempt),
	}
	env := make([]string, 0, len(r.spec.Env)+len(own)+1)
	term := false
	for _, raw := range r.spec.Env {
		name, _, _ := strings.Cut(string(raw), "=")
		if slices.ContainsFunc(own, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
			continue
		}
		term = term || name == "TERM"
		env = append(env, string(raw))
	}
	if !term {
		name := os.Getenv("TERM") // the pane's
		if name == "" {
			name = "xterm-256color"
		}
		env = append(env, "TERM="+name)
	}
	return append(env, own...)
}

// spawn forks the agent on the terminal, as the leader of a session of its own, with nothing but its three descriptors.
// It is killed when this process dies. It is forked in the group, or after ungrouped without one. The errors are for people:
// they say what is wrong and with what.
func spawn(spec record.Spec, env []string, tty *os.File, group *cgroup.Group, ungrouped func() error) (int, error) {
	if err := checkWorkdir(spec.Workdir); err != nil {
		return 0, err
	}
	path, err := lookUp(spec.Command, spec.Workdir, env)
	if err != nil {
		return 0, err
	}
	if err := checkStrings(spec.Command, env); err != nil {
		return 0, err
	}
	stdin := tty
	if spec.Stdin == record.StdinNull {
		if stdin, err = os.Open(os.DevNull); err != nil {
			return 0, err
		}
		defer stdin.Close()
	}
	attr := &syscall.ProcAttr{
		Dir:   spec.Workdir,
		Env:   env,
		Files: []uintptr{stdin.Fd(), tty.Fd(), tty.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1, Pdeathsig: syscall.SIGKILL},
	}
	if pid, err := forkInto(group, path, spec.Command, attr); err == nil {
		return pid, nil
	}
	if err := ungrouped(); err != nil {
		return 0, err
	}
	pid, err := fork(path, spec.Command, attr)
	if err != nil {
		return 0, explain(err, path, spec.Command, env)
	}
	return pid, nil
}

// forkInto forks the agent in the group, so that not one instruction of it runs outside (clone3(2), CLONE_INTO_CGROUP). Where
// the kernel, a seccomp filter or the group's parent do not let it, the error is not told from one of execve(2), and nothing
// has run: the caller tries again without.
func forkInto(group *cgroup.Group, path string, argv []string, attr *syscall.ProcAttr) (int, error) {
	if group == nil {
		return 0, cgroup.ErrUnavailable
	}
	dir, err := group.Open()
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	grouped, sys := *attr, *attr.Sys
	sys.UseCgroupFD, sys.CgroupFD = true, int(dir.Fd())
	grouped.Sys = &sys
	return fork(path, argv, &grouped)
}

// fork forks and executes with the agents' limit on processes, which is below this process's own: an agent that forks until
// it can't leaves the threads that this runner and the daemon may need, without which the Go runtime aborts.
func fork(path string, argv []string, attr *syscall.ProcAttr) (int, error) {
	own, agents, err := rlimit.Agents()
	if err != nil {
		return 0, err
	}
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &agents); err != nil {
		return 0, os.NewSyscallError("setrlimit", err)
	}
	pid, err := syscall.ForkExec(path, argv, attr)
	if rerr := unix.Setrlimit(unix.RLIMIT_NPROC, &own); rerr != nil && err != nil {
		err = errors.Join(err, rerr)
	}
	return pid, err
}

func checkWorkdir(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("working directory %q is not an absolute path", dir)
	}
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("working directory %s does not exist", dir)
	case err != nil:
		return fmt.Errorf("working directory: %w", err)
	case !st.IsDir():
		return fmt.Errorf("working directory %s is not a directory", dir)
	}
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.X_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("working directory %s may not be entered: %w", dir, err)
	}
	return nil
}

// checkStrings finds what execve(2) can't pass on, and the kernel would refuse with a bare EINVAL.
func checkStrings(argv, env []string) error {
	for i, a := range argv {
		if strings.IndexByte(a, 0) >= 0 {
			return fmt.Errorf("argument %d has a NUL byte", i)
		}
	}
	for _, e := range env {
		if strings.IndexByte(e, 0) >= 0 {
			name, _, _ := strings.Cut(e, "=")
			return fmt.Errorf("environment variable %q has a NUL byte", name)
		}
	}
	return nil
}

// lookUp finds the program as execvp(3) does, but with the agent's PATH and directory.
func lookUp(command []string, dir string, env []string) (string, error) {
	if len(command) == 0 || command[0] == "" {
		return "", errors.New("the command is empty")
	}
	name := command[0]
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		switch err := executable(path); {
		case errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("command %q not found", path)
		case err != nil:
			return "", fmt.Errorf("command %q can't be run: %w", path, err)
		}
		return path, nil
	}
	search := searchPath(env)
	var denied error
	for _, d := range filepath.SplitList(search) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		path := filepath.Join(d, name)
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if denied == nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			denied = fmt.Errorf("command %q: %s can't be run: %w", name, path, err)
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", fmt.Errorf("command %q not found in PATH (%s)", name, cut(search, 200))
}

// searchPath is the environment's PATH; where it has none, execvp(3)'s.
func searchPath(env []string) string {
	search := "/bin:/usr/bin"
	for _, e := range env {
		if p, ok := strings.CutPrefix(e, "PATH="); ok {
			search = p
		}
	}
	if search == "" {
		return "."
	}
	return search
}

var errIsDir = errors.New("it is a directory")

func executable(path string) error {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		var pe *fs.PathError
		if errors.As(err, &pe) {
			return pe.Err
		}
		return err
	case st.IsDir():
		return errIsDir
	}
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}

// explain puts what fork(2) and execve(2) refuse into words. The program and its directory were there a moment before.
func explain(err error, path string, argv, env []string) error {
	switch {
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("%s: %w (a script without a #! line, or a program for another machine?)", path, err)
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%s: its interpreter is missing (the #! line, or the dynamic loader): %w", path, err)
	case errors.Is(err, unix.E2BIG):
		total, longest := measure(argv, env)
		return fmt.Errorf("%s: %w: arguments and environment are %d bytes, the longest %d (one may have 131071)",
			path, err, total, longest)
	case errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("%s: fork: %w: a limit on processes is reached (ulimit -u, or pids.max of a cgroup)", path, err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s: %w (it, its interpreter, or a file system mounted noexec)", path, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

func measure(lists ...[]string) (total, longest int) {
	for _, list := range lists {
		for _, s := range list {
			total += len(s) + 1
			longest = max(longest, len(s))
		}
	}
	return total, longest
}
