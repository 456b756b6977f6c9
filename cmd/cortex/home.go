package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stateDir is the folder of everything that a daemon keeps: ~/.cortex.
func stateDir() (string, error) {
	home, err := os.UserHomeDir()
	if err != nil || !filepath.IsAbs(home) {
		return "", fmt.Errorf("the state folder ~/.cortex can't be found: $HOME is %q; set it to an absolute path", os.Getenv("HOME"))
	}
	return filepath.Join(home, ".cortex"), nil
}

// makeHome makes the state folder and runs/ in it, for this user alone.
func makeHome(home string) error {
	for _, dir := range []string{home, filepath.Join(home, "runs")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the state folder: %w", err)
		}
		st, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("look at the state folder: %w", err)
		}
		if st.Mode().Perm()&0o077 != 0 {
			if err := os.Chmod(dir, 0o700); err != nil {
				return fmt.Errorf("close the state folder to others: %w", err)
			}
		}
	}
	return nil
}

// lock is held while a daemon runs: two for one state folder would start everything twice. The kernel releases it when the
// process ends, however it ends (flock(2)).
type lock struct{ f *os.File }

func takeLock(home string) (*lock, error) {
	path := filepath.Join(home, "cortex.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	if err := awaitLock(f); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		holder, rerr := os.ReadFile(path)
		if rerr != nil || len(holder) == 0 {
			holder = []byte("its pid is not known")
		}
		return nil, fmt.Errorf("another cortex runs for %s (%s) and holds %s; use that one, or stop it first",
			home, strings.TrimSpace(string(holder)), path)
	}
	text := fmt.Sprintf("pid %d, since %s\n", os.Getpid(), time.Now().UTC().Format(time.RFC3339))
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(text), 0)
	}
	if err != nil && !errors.Is(err, syscall.ENOSPC) { // who holds it is only said less well
		f.Close()
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return &lock{f}, nil
}

func (l *lock) release() error { return l.f.Close() }

// lockPatience is how long a daemon that starts waits for the lock. One that was killed in the moment of a fork leaves it with
// the child until that is at its exec.
const lockPatience = time.Second

// awaitLock takes the lock. The error is that of flock(2): EWOULDBLOCK where somebody else has it.
func awaitLock(f *os.File) error {
	for deadline := time.Now().Add(lockPatience); ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// listenSocket listens on cortex.sock in the state folder, which only this user can open. A socket that a dead daemon left is
// replaced: whoever calls this holds the lock.
func listenSocket(home string) (net.Listener, error) {
	path := filepath.Join(home, "cortex.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("replace the socket of an earlier daemon: %w", err)
	}
	// An address of a socket has 108 bytes (unix(7)); through the folder's descriptor a path of any length fits.
	dir, err := os.Open(home)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	address := fmt.Sprintf("/proc/self/fd/%d/cortex.sock", dir.Fd())
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: address, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // by then the descriptor's number is another file's; serve removes it
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// listenTCP listens for curl, browsers and Prometheus.
func listenTCP(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is another program's (`ss -ltnp` names it); end that, or set api.listen to another address", address)
	}
	return l, err
}
