package api

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	tokenFile    = "token"
	tokenLeast   = 32   // characters; a shorter one was cut off, or made by hand and can be guessed
	tokenMost    = 4096 // bytes read; no token is longer
	tokenTooOpen = 0o077
)

// LoadToken returns the bearer token in the state folder home (~/.cortex), and makes it where there is none: 260 random
// bits in a file of mode 0600. It refuses a file that others could have read or written, since whoever knows the token
// runs commands as this user. Call it while holding the home's lock.
func LoadToken(home string) (string, error) {
	path := filepath.Join(home, tokenFile)
	token, err := readToken(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	if err := makeToken(home, path); err != nil {
		return "", fmt.Errorf("make token: %w", err)
	}
	return readToken(path)
}

// readToken follows no link (O_NOFOLLOW) and waits for no writer (O_NONBLOCK, should it be a FIFO), and asks the open
// file, not the path, what it is.
func readToken(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return "", fmt.Errorf("%s is a link, not a file: remove it, and a new token is made at the next start", path)
	}
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	defer func() { _ = f.Close() }() // only read from
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	switch {
	case stat.Mode&unix.S_IFMT != unix.S_IFREG:
		return "", fmt.Errorf("%s is no regular file: remove it, and a new token is made at the next start", path)
	case !sameUser(stat.Uid):
		return "", fmt.Errorf("%s belongs to uid %d: remove it, and a new token is made at the next start", path, stat.Uid)
	case stat.Mode&tokenTooOpen != 0:
		return "", fmt.Errorf("%s has mode %04o, so that others may know it: remove it for a new token, "+
			"or, if nobody else was on this host, chmod 600 %s", path, stat.Mode&0o7777, path)
	}
	content, err := io.ReadAll(io.LimitReader(f, tokenMost+1))
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	token := strings.TrimSpace(string(content))
	if len(token) < tokenLeast || len(content) > tokenMost || strings.ContainsFunc(token, notTokenRune) {
		return "", fmt.Errorf("%s does not hold a token (one line of at least %d letters and digits): "+
			"remove it, and a new one is made at the next start", path, tokenLeast)
	}
	return token, nil
}

// notTokenRune reports what can't stand in an Authorization header's word.
func notTokenRune(r rune) bool { return r <= ' ' || r > '~' }

// makeToken writes a new token beside its place and links it there: link(2) never replaces, so that the file is there
// whole or not at all, and one that came meanwhile stays.
func makeToken(home, path string) error {
	beside := path + ".new"
	if err := os.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) { // a start that crashed left it
		return err
	}
	f, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(rand.Text() + rand.Text() + "\n") // Text alone has 130 bits
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Link(beside, path)
	}
	if err = errors.Join(err, os.Remove(beside)); err != nil {
		return err
	}
	return syncFolder(home)
}

// syncFolder makes the names in a folder durable.
func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
