package e2e

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cortex/internal/testenv"
)

// All tests again as a user without rights and without control groups, where root runs them: in a copy of the checkout that
// this user may read.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		return // they are run so already
	}
	bin, err := testenv.Build()
	if err != nil {
		t.Fatal(err)
	}
	work, err := os.MkdirTemp("/tmp", "cortex-unprivileged") // t.TempDir() is below a folder of root's
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	if err := os.CopyFS(filepath.Join(work, "checkout"), sources{os.DirFS("..")}); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(filepath.Join(work, "e2e.test"), program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(work, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, testenv.Nobody, testenv.Nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(work, "e2e.test"), "-test.timeout=9m", "-test.parallel=4")
	cmd.Dir = filepath.Join(work, "checkout", "e2e")
	cmd.Env = append(os.Environ(), testenv.BinariesOf+"="+bin.Dir, "HOME="+work, "TMPDIR="+work)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: testenv.Nobody, Gid: testenv.Nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.HasSuffix(out, []byte("PASS\n")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// sources is a checkout without its history.
type sources struct{ fs.FS }

func (s sources) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(s.FS, name)
	kept := entries[:0]
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".git") {
			kept = append(kept, e)
		}
	}
	return kept, err
}
