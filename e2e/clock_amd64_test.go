package e2e

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cortex/internal/testenv"
)

// wallClock is the wall clock of one process, which can be set as settimeofday(2) sets that of the host: the process's own copy
// of __vdso_clock_gettime, by which Go reads all clocks (vdso(7)), adds an offset to CLOCK_REALTIME, and to no other.
type wallClock struct {
	t      *testing.T
	mem    *os.File
	offset int64 // address of the offset, in seconds
}

// realtime is clock_gettime(2) with that offset, for amd64: edi is the clock, rsi the result.
var realtime = []byte{
	0xb8, 0xe4, 0, 0, 0, // mov eax, SYS_clock_gettime
	0x0f, 0x05, // syscall
	0x85, 0xff, // test edi, edi
	0x75, 0x0a, // jnz to ret: not CLOCK_REALTIME
	0x48, 0x8b, 0x15, 6, 0, 0, 0, // mov rdx, [rip+6]: offset
	0x48, 0x01, 0x16, // add [rsi], rdx
	0xc3,       // ret
	0x90, 0x90, // what follows is the offset
}

func clockOf(t *testing.T, pid int) *wallClock {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	must(err)
	var start, end int64
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			_, err := fmt.Sscanf(line, "%x-%x", &start, &end)
			must(err)
		}
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	must(err)
	t.Cleanup(func() { mem.Close() })
	image := make([]byte, end-start)
	_, err = mem.ReadAt(image, start)
	must(err)
	object, err := elf.NewFile(bytes.NewReader(image))
	must(err)
	symbols, err := object.DynamicSymbols()
	must(err)
	room := int64(len(bytes.TrimRight(image, "\x00")))/16*16 + 32 // behind all that is in it
	if room+int64(len(realtime))+8 > int64(len(image)) {
		t.Fatalf("no room in a vdso of %d bytes", len(image))
	}
	for _, s := range symbols {
		if s.Name != "__vdso_clock_gettime" {
			continue
		}
		_, err := mem.WriteAt(realtime, start+room)
		must(err)
		jump := binary.LittleEndian.AppendUint32([]byte{0xe9}, uint32(room-int64(s.Value)-5))
		must(syscall.Kill(pid, syscall.SIGSTOP)) // nobody runs there meanwhile
		_, err = mem.WriteAt(jump, start+int64(s.Value))
		must(err)
		must(syscall.Kill(pid, syscall.SIGCONT))
		return &wallClock{t, mem, start + room + int64(len(realtime))}
	}
	t.Fatal("the vdso has no clock_gettime")
	return nil
}

// set sets the clock to the true time and by.
func (c *wallClock) set(by time.Duration) {
	c.t.Helper()
	seconds := binary.LittleEndian.AppendUint64(nil, uint64(int64(by/time.Second)))
	if _, err := c.mem.WriteAt(seconds, c.offset); err != nil {
		c.t.Fatal(err)
	}
}

// The wall clock of the daemon and of a runner is set forth and back by an hour while dispatches run: timeouts count what has
// elapsed, no duration is negative or longer by an hour, ids and events keep their order, and a pause stays one.
func TestWallClockSet(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	clock := clockOf(t, d.PID())
	says := func() time.Duration {
		_, a := h.Post("/scheduler/resume", "")
		at, err := time.Parse(time.RFC3339, fmt.Sprint(a["timestamp"]))
		if err != nil {
			t.Fatal(err)
		}
		return time.Until(at).Round(time.Hour)
	}
	lives := h.Submit("lives", "sleep", "100000")
	ends := h.Submit("ends", gated(h, h.Home+"/gate")...)
	h.WaitRunning(lives)
	h.WaitRunning(ends)
	runner := clockOf(t, claimOf(t, h, ends).Runner.PID)

	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		timed := h.Cortex("submit", "--bead", "timed", "--timeout", "3s", "--", "sleep", "100000")
		h.WaitRunning(timed)
		clock.set(by)
		runner.set(by)
		if got := says(); got != by {
			t.Fatalf("the clock differs by %v, want %v: it was not set", got, by)
		}
		h.WaitStatus(timed, "failed")
		if took := duration(t, h, timed); h.Field(timed, "failure_category") != "timeout" || took < 2.9 {
			t.Errorf("%s after %v s, the timeout is 3 s", h.Field(timed, "failure_category"), took)
		}
	}
	// It is now 11 where it was 12.
	if code, a := h.Post("/scheduler/pause", `{"ttl":"2h"}`); code != 200 {
		t.Fatalf("pause: %d %v", code, a)
	}
	waits := h.Submit("waits", once(h)...)
	clock.set(0)
	if _, a := h.Get("/scheduler/status"); a["state"] != "paused" {
		t.Errorf("%v", a)
	}
	clock.set(-3 * time.Hour)
	if _, a := h.Get("/scheduler/status"); a["state"] != "paused" || a["paused_duration"] != "0s" {
		t.Errorf("%v", a)
	}
	h.Run("touch", h.Home+"/gate")
	h.WaitStatus(ends, "failed")
	killBoth(t, h, lives)
	h.WaitStatus(lives, "failed")
	d.Stop()
	h.Start() // with the true time, on records of an earlier and of a later one
	if _, a := h.Get("/scheduler/status"); a["state"] != "paused" || h.Status(waits) != "pending" {
		t.Errorf("%v, the waiting one is %s", a, h.Status(waits))
	}
	h.Post("/scheduler/resume", "")
	h.WaitStatus(waits, "failed")
	for _, id := range []string{lives, ends, waits} {
		duration(t, h, id)
	}
	if x := h.Field(ends, "exit_code"); x != "7" || ran(h) != 2 {
		t.Errorf("exit code %s, ran %d times", x, ran(h))
	}
	if got := h.SQL("SELECT group_concat(event_type) FROM (SELECT * FROM events WHERE dispatch_id = " + ends + " ORDER BY id)"); got !=
		"dispatch_submitted,dispatch_started,dispatch_failed" {
		t.Errorf("events %s", got)
	}
}

// duration is how long a dispatch has run, in seconds: no longer than this test.
func duration(t *testing.T, h *testenv.Host, id string) float64 {
	t.Helper()
	took, err := strconv.ParseFloat(h.Field(id, "duration_s"), 64)
	if err != nil || took < 0 || took > 1800 {
		t.Errorf("dispatch %s ran for %v s (%v)", id, took, err)
	}
	return took
}
