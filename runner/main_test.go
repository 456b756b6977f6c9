package runner

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"cortex/proc"
	"cortex/runner/record"
)

// roleEnv makes the test binary a runner that claims attempts.
const roleEnv = "RUNNER_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "claimer" {
		os.Exit(claimer())
	}
	goleak.VerifyTestMain(m)
}

// claimer claims the attempts whose numbers it reads, as a runner does, and says what came of it.
func claimer() int {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		attempt, err := strconv.Atoi(lines.Text())
		if err == nil {
			err = claim(os.Args[1], attempt)
		}
		switch {
		case err == nil:
			fmt.Println("claimed")
		case errors.Is(err, record.ErrTaken):
			fmt.Println("lost")
		default:
			fmt.Println(err)
		}
	}
	return 0
}

func claim(runs string, attempt int) error {
	d, err := record.OpenDir(runs, 7, attempt)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Create(record.ClaimFile, record.Claim{Format: record.Format, Runner: record.Process{PID: os.Getpid()}, At: time.Now()})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

// makeDir makes the folder of dispatch 7, or of an attempt of it.
func makeDir(t testing.TB, runs string, attempt int) *record.Dir {
	t.Helper()
	if attempt != 0 {
		top, err := record.MakeDir(runs, 7, 0)
		check(t, err)
		check(t, top.Close())
	}
	d, err := record.MakeDir(runs, 7, attempt)
	check(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// here is a process as this boot and this pid namespace record it.
func here(id proc.Ident) record.Process {
	return record.Process{Boot: proc.BootID(), PIDNS: proc.PIDNamespace(), PID: id.PID, Start: id.Start}
}
