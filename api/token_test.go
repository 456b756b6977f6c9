package api

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLoadTokenMakesOneAndKeepsIt(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "token.new"), []byte("of a start that crashed"), 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := LoadToken(home)
	if err != nil {
		t.Fatal(err)
	}
	if len(first) != 52 || strings.Trim(first, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		t.Errorf("token %q is not 52 characters of base32", first)
	}
	info, err := os.Lstat(filepath.Join(home, "token"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode %v, want -rw-------", info.Mode())
	}
	if again, err := LoadToken(home); err != nil || again != first {
		t.Errorf("loaded again: %q %v, want %q", again, err, first)
	}
	entries, err := os.ReadDir(home)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	if other, err := LoadToken(t.TempDir()); err != nil || other == first {
		t.Errorf("another home: %q %v", other, err)
	}
}

func TestLoadTokenRefuses(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("A", tokenLeast)
	plain := func(content string, mode fs.FileMode) func(string) error {
		return func(path string) error {
			// Chmod, since the umask takes bits from what WriteFile asks for.
			return errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chmod(path, mode))
		}
	}
	for _, c := range []struct {
		name string
		make func(path string) error
		want string
	}{
		{"group reads", plain(good, 0o640), "has mode 0640"},
		{"group writes", plain(good, 0o620), "chmod 600"},
		{"others read", plain(good, 0o604), "chmod 600"},
		{"others run", plain(good, 0o601), "chmod 600"},
		{"short", plain(good[1:], 0o600), "does not hold a token"},
		{"empty", plain("", 0o600), "does not hold a token"},
		{"two lines", plain(good+"\n"+good, 0o600), "does not hold a token"},
		{"control character", plain(good+"\x00", 0o600), "does not hold a token"},
		{"too long", plain(strings.Repeat("A", tokenMost+1), 0o600), "does not hold a token"},
		{"link", func(path string) error {
			return errors.Join(plain(good, 0o600)(path+".real"), os.Symlink(path+".real", path))
		}, "is a link"},
		{"dangling link", func(path string) error { return os.Symlink("nowhere", path) }, "is a link"},
		{"folder", func(path string) error { return os.Mkdir(path, 0o700) }, "is no regular file"},
		{"fifo", func(path string) error { return unix.Mkfifo(path, 0o600) }, "is no regular file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			if err := c.make(filepath.Join(home, "token")); err != nil {
				t.Fatal(err)
			}
			token, err := LoadToken(home)
			if token != "" || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, %v; want an error with %q", token, err, c.want)
			}
		})
	}
}

func TestLoadTokenOfAnotherUser(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	path := filepath.Join(home, "token")
	if err := os.WriteFile(path, []byte(strings.Repeat("A", tokenLeast)), 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 { // nobody else can give a file away: then the file is one's own, and good
		if _, err := LoadToken(home); err != nil {
			t.Error(err)
		}
		return
	}
	if err := os.Chown(path, strangerUID, strangerUID); err != nil {
		t.Fatal(err)
	}
	if token, err := LoadToken(home); token != "" || err == nil || !strings.Contains(err.Error(), "belongs to uid 65534") {
		t.Errorf("got %q, %v", token, err)
	}
}

func TestLoadTokenWhereNoneCanBeMade(t *testing.T) {
	t.Parallel()
	if _, err := LoadToken(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no home: %v", err)
	}
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, "token.new", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadToken(home); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("place beside taken: %v", err)
	}
	// A file in a folder's place can't be opened as one.
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadToken(file); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("home is a file: %v", err)
	}
	if err := syncFolder(filepath.Join(file, "x")); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("sync of no folder: %v", err)
	}
}

func TestMakeTokenNeverReplaces(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	first, err := LoadToken(home)
	if err != nil {
		t.Fatal(err)
	}
	if err := makeToken(home, filepath.Join(home, "token")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made over another: %v", err)
	}
	if again, err := LoadToken(home); err != nil || again != first {
		t.Errorf("after that: %q %v, want %q", again, err, first)
	}
}
