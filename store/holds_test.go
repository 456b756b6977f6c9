package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"cortex"
	"cortex/runner/record"
)

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	d := accept(t, s)
	h, recorded, err := s.Pause(ctx, cortex.Hold{Reason: "why", By: "me", Via: "http"})
	check(t, err)
	if recorded != RecordedDatabase || h.ID == 0 || h.Kind != cortex.HoldOperator || h.Scope != cortex.ScopeAll {
		t.Errorf("%s %+v", recorded, h)
	}
	_, err = s.Claim(ctx, d.ID, atMost(10), nil)
	wantErr(t, err, ErrHeld)

	again, _, err := s.Pause(ctx, cortex.Hold{Reason: "why else"})
	check(t, err)
	if again.ID != h.ID || !again.Since.Equal(h.Since.Truncate(time.Millisecond)) || again.Reason != "why else" || again.By != "me" {
		t.Errorf("second pause %+v of %+v", again, h)
	}
	if held := s.Holds(); len(held) != 1 || held[0].ID != h.ID || held[0].Reason != "why else" {
		t.Errorf("holds %+v", held)
	}
	sqlite(t, s.path, "INSERT INTO holds (kind, scope) VALUES ('maintenance', 'all'), ('operator', 'project:q')")
	lifted, remaining, err := s.Resume(ctx, "me", "http", "done")
	check(t, err)
	if len(lifted) != 1 || len(remaining) != 1 || remaining[0].Kind != "maintenance" {
		t.Errorf("resume %+v, %+v", lifted, remaining)
	}
	if held := s.Holds(); len(held) != 2 {
		t.Errorf("holds %+v", held)
	}
	sqlite(t, s.path, "UPDATE holds SET lifted_at = datetime('now')")
	eventually(t, "the change by hand to be seen", func() bool { return len(s.Holds()) == 0 })
	if got := must[[]Waiter](t)(s.Startable(ctx, nil)); len(got) != 1 || got[0].ID != d.ID {
		t.Errorf("pending %+v", got)
	}
	must[cortex.Attempt](t)(s.Claim(ctx, d.ID, atMost(10), nil))
	if n := count(t, s, cortex.EventSchedulerPaused); n != 2 {
		t.Errorf("%d events", n)
	}
	if got := sqlite(t, s.path, `SELECT lifted_by, lifted_reason, "by" FROM holds WHERE kind = 'operator' AND scope = 'all'`); got != "me|done|me" {
		t.Errorf("lifted %q", got)
	}
}

func TestPauseWithAnEnd(t *testing.T) {
	t.Parallel()
	now := time.Now()
	at := func(d time.Duration) *time.Time { return ptr(now.Add(d).UTC().Truncate(time.Millisecond)) }
	for _, c := range []struct {
		name          string
		first, second *time.Time
		until         *time.Time
		kind          cortex.HoldKind
	}{
		{"an end does not shorten an endless one", nil, at(time.Hour), nil, cortex.HoldOperator},
		{"an endless one goes on", at(time.Hour), nil, nil, cortex.HoldOperator},
		{"the later end counts", at(time.Hour), at(2 * time.Hour), at(2 * time.Hour), cortex.HoldTTL},
		{"an earlier end does not", at(2 * time.Hour), at(time.Hour), at(2 * time.Hour), cortex.HoldTTL},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := openNew(t)
			for _, until := range []*time.Time{c.first, c.second} {
				_, _, err := s.Pause(ctx, cortex.Hold{Until: until})
				check(t, err)
			}
			held := s.Holds()
			if len(held) != 1 || held[0].Kind != c.kind {
				t.Fatalf("holds %+v", held)
			}
			if (c.until == nil) != (held[0].Until == nil) || c.until != nil && !c.until.Equal(*held[0].Until) {
				t.Errorf("until %v, want %v", held[0].Until, c.until)
			}
		})
	}
}

func TestExpire(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	if _, ok := s.NextExpiry(); ok {
		t.Error("something ends")
	}
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	_, _, err := s.Pause(ctx, cortex.Hold{Until: &until})
	check(t, err)
	if at, ok := s.NextExpiry(); !ok || !at.Equal(until) {
		t.Errorf("next %v %v", at, ok)
	}
	check(t, s.Expire(ctx, until.Add(-time.Second)))
	if len(s.Holds()) != 1 {
		t.Error("too early")
	}
	check(t, s.Expire(ctx, until))
	if got := sqlite(t, s.path, "SELECT lifted_at = until, lifted_by FROM holds"); got != "1|cortex" {
		t.Errorf("expired %s", got)
	}
	if _, ok := s.NextExpiry(); ok || len(s.Holds()) != 0 {
		t.Error("still there")
	}
	ev := must[[]cortex.Event](t)(s.Events(ctx, until, 10))
	if len(ev) != 1 || ev[0].Type != cortex.EventSchedulerResumed || !ev[0].CreatedAt.Equal(until) {
		t.Errorf("events %+v", ev)
	}
}

func TestResumeOnALockIsRefusedAndNeverApplied(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	_, _, err := s.Pause(ctx, cortex.Hold{})
	check(t, err)
	lock := lockOut(t, s)
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	_, _, err = s.Resume(short, "", "", "")
	wantErr(t, err, ErrLocked)
	lock.close()
	check(t, s.AddEvent(ctx, cortex.Event{Type: "after"}))
	if held := s.Holds(); len(held) != 1 || held[0].Kind != cortex.HoldOperator {
		t.Errorf("holds %+v", held)
	}
	resume(t, s)
	if len(s.Holds()) != 0 {
		t.Error("still paused")
	}
}

func TestPauseOnALockIsJournalled(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	d := accept(t, s)
	lock := lockOut(t, s)
	began := time.Now()
	h, recorded, err := s.Pause(ctx, cortex.Hold{Reason: "now"})
	check(t, err)
	if took := time.Since(began); recorded != RecordedJournal || took > 3*time.Second {
		t.Errorf("%s after %v", recorded, took)
	}
	if len(s.mem.stored(time.Now())) != 1 || h.Kind != cortex.HoldOperator {
		t.Errorf("holds %+v", s.Holds())
	}

	// kill -9, and the next daemon finds the database free, or locked as well.
	free := openAt(t, copyHome(t, s.home))
	if held := free.mem.stored(time.Now()); len(held) != 1 || held[0].Reason != "now" {
		t.Errorf("after a crash: %+v", held)
	}
	_, err = free.Claim(ctx, d.ID, atMost(10), nil)
	wantErr(t, err, ErrHeld)
	home := copyHome(t, s.home)
	other := outside(t, filepath.Join(home, "cortex.db"), "BEGIN EXCLUSIVE;")
	shut := openAt(t, home)
	if held := shut.Holds(); len(held) != 2 {
		t.Errorf("after a crash, locked: %+v", held)
	}
	other.close()
	<-shut.Ready()
	_, err = shut.Claim(ctx, d.ID, atMost(10), nil)
	wantErr(t, err, ErrHeld)

	lock.close()
	eventually(t, "the row", func() bool { return len(s.mem.waitingOrders()) == 0 && len(s.Holds()) == 1 })
	if held := s.Holds(); len(held) != 1 || held[0].ID == 0 || !held[0].Since.Equal(h.Since.Truncate(time.Millisecond)) {
		t.Errorf("holds %+v, journalled %+v", held, h)
	}
	_, err = s.Claim(ctx, d.ID, atMost(10), nil)
	wantErr(t, err, ErrHeld)
	if data := must[[]byte](t)(os.ReadFile(filepath.Join(s.home, "stop.journal"))); len(data) != journalSize ||
		len(strings.Trim(string(data[len(journalMagic):]), "\x00")) != 0 {
		t.Error("the journal was not emptied")
	}
	if n := count(t, s, cortex.EventJournalReplayed); n != 1 {
		t.Errorf("%d events", n)
	}
}

func TestResumeLiftsAJournalledPause(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	d := accept(t, s)
	lock := lockOut(t, s)
	_, recorded, err := s.Pause(ctx, cortex.Hold{})
	check(t, err)
	type result struct {
		lifted []cortex.Hold
		err    error
	}
	done := make(chan result, 1)
	go func() {
		lifted, _, err := s.Resume(ctx, "", "", "")
		done <- result{lifted, err}
	}()
	eventually(t, "the resume to wait", func() bool { return !s.queue.empty() })
	lock.close()
	r := <-done
	check(t, r.err)
	if recorded != RecordedJournal || len(r.lifted) != 1 || len(s.Holds()) != 0 {
		t.Errorf("%s, %+v, %+v", recorded, r.lifted, s.Holds())
	}
	must[cortex.Attempt](t)(s.Claim(ctx, d.ID, atMost(10), nil))
}

// A crash between the commit and the emptying of the journal must not pause again what was resumed.
func TestJournalledOrderIsAppliedOnce(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	lock := lockOut(t, s)
	_, _, err := s.Pause(ctx, cortex.Hold{})
	check(t, err)
	journal := must[[]byte](t)(os.ReadFile(filepath.Join(s.home, "stop.journal")))
	lock.close()
	resume(t, s)
	home := s.home
	closeWell(t, s)
	check(t, os.WriteFile(filepath.Join(home, "stop.journal"), journal, 0o600))
	s = openAt(t, home)
	check(t, s.AddEvent(ctx, cortex.Event{Type: "after"}))
	if held := s.Holds(); len(held) != 0 {
		t.Errorf("holds %+v", held)
	}
}

func TestStopOrdersOnALock(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	a, waits := run(t, s), accept(t, s)
	order := record.Order{Format: 1, By: "operator", Actor: "me", GraceMS: 5, At: time.Now()}
	ev := cortex.Event{Type: cortex.EventDispatchCancelling, Message: "stop"}
	lock := lockOut(t, s)
	recorded, err := s.OrderStop(ctx, a.Dispatch.ID, a.Number, order, ev)
	check(t, err)
	d, recorded2, err := s.CancelPending(ctx, waits.ID, "me")
	check(t, err)
	if recorded != RecordedJournal || recorded2 != RecordedJournal || d.Status != cortex.Cancelled {
		t.Errorf("%s %s %+v", recorded, recorded2, d)
	}
	_, _, err = s.CancelPending(ctx, a.Dispatch.ID, "me")
	wantErr(t, err, ErrNotPending)
	_, _, err = s.CancelPending(ctx, 99, "me")
	wantErr(t, err, ErrNotFound)
	wantErr(t, s.mem.notStarted(waits, time.Now()), ErrHeld)

	crashed := openAt(t, copyHome(t, s.home))
	orders := crashed.JournalOrders()
	if len(orders) != 1 || orders[a.Dispatch.ID].GraceMS != 5 {
		t.Errorf("orders %+v", orders)
	}
	for name, s := range map[string]*Store{"after a crash": crashed, "after the lock": s} {
		lock.close()
		check(t, s.AddEvent(ctx, cortex.Event{Type: "after"}))
		if got := get(t, s, a.Dispatch.ID); got.Status != cortex.Running || got.Stage != cortex.StageCancelling {
			t.Errorf("%s: %+v", name, got)
		}
		if got := get(t, s, waits.ID); got.Status != cortex.Cancelled || got.StoppedBy != cortex.ByOperator {
			t.Errorf("%s: %+v", name, got)
		}
		if o := must[map[int64]*record.Order](t)(s.StopOrders(ctx))[a.Dispatch.ID]; o == nil || o.Actor != "me" {
			t.Errorf("%s: %+v", name, o)
		}
		if s.Counts()[cortex.Cancelled] != 1 || s.Counts()[cortex.Pending] != 0 {
			t.Errorf("%s: %v", name, s.Counts())
		}
	}
	again := openAt(t, copyHome(t, s.home))
	if orders := again.JournalOrders(); len(orders) != 0 {
		t.Errorf("applied, but found again: %+v", orders)
	}
}

func TestJournalFillsUpAndSaysSo(t *testing.T) {
	t.Parallel()
	j := must[*journal](t)(openJournal(t.TempDir(), logTo(t)))
	defer j.close()
	var last error
	keys := map[string]bool{}
	for last == nil {
		var e entry
		if e, last = j.append(entry{Op: opPause, Hold: &cortex.Hold{Reason: strings.Repeat("x", 1000)}}); last == nil {
			keys[e.Key] = true
		}
	}
	wantErr(t, last, errJournalFull)
	if c := j.check(); c.OK || len(keys) < 150 {
		t.Errorf("%d orders, %+v", len(keys), c)
	}
	check(t, j.reset(keys))
	if c := j.check(); !c.OK {
		t.Errorf("%+v", c)
	}
	if _, err := j.append(entry{Op: opPause}); err != nil {
		t.Error(err)
	}
	if st := must[os.FileInfo](t)(os.Stat(j.path)); st.Size() != journalSize {
		t.Errorf("size %d", st.Size())
	}
}

func TestDamagedJournalIsSetAside(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	check(t, os.WriteFile(filepath.Join(home, "stop.journal"), []byte("rubbish"), 0o600))
	j := must[*journal](t)(openJournal(home, logTo(t)))
	defer j.close()
	if found := must[[]string](t)(filepath.Glob(filepath.Join(home, "stop.journal.damaged-*"))); len(found) != 1 || !j.check().OK {
		t.Errorf("%v, %+v", found, j.check())
	}
}

// A journal cut or scribbled at any place gives the entries before that place, and never anything else.
func TestTornJournal(t *testing.T) {
	t.Parallel()
	data, ends := sampleJournal(t)
	for at := len(journalMagic); at < ends[len(ends)-1]; at++ {
		torn := slices.Clone(data)
		torn[at] ^= 0x55
		whole := 0
		for whole < len(ends) && ends[whole] <= at {
			whole++
		}
		got, _ := decodeJournal(torn)
		// The sequence of the first entry is as good as any other, but its checksum knows it.
		if len(got) != whole {
			t.Fatalf("byte %d: %d entries, want %d", at, len(got), whole)
		}
	}
}

func sampleJournal(t testing.TB) (data []byte, ends []int) {
	data = make([]byte, 4096)
	at := copy(data, journalMagic)
	for i := range 3 {
		one, err := encodeEntry(entry{Seq: uint64(7 + i), Key: fmt.Sprint("key", i), Op: opCancel, ID: int64(i)})
		if err != nil {
			t.Fatal(err)
		}
		at += copy(data[at:], one)
		ends = append(ends, at)
	}
	return data, ends
}

// FuzzDecodeJournal: whatever is in the file, entries have keys and rising sequences, and are found again where they are written
// anew; what follows the last whole one changes nothing.
func FuzzDecodeJournal(f *testing.F) {
	data, ends := sampleJournal(f)
	f.Add(data)
	f.Add(data[:ends[1]+3])
	huge := slices.Clone(data)
	binary.LittleEndian.PutUint32(huge[len(journalMagic):], 1<<32-1)
	f.Add(huge)
	f.Fuzz(func(t *testing.T, data []byte) {
		all, end := decodeJournal(data)
		if end < len(journalMagic) || (end > len(data) && len(all) > 0) {
			t.Fatalf("%d entries end at %d of %d", len(all), end, len(data))
		}
		anew := []byte(journalMagic)
		for i, e := range all {
			if e.Key == "" || i > 0 && e.Seq != all[i-1].Seq+1 {
				t.Fatalf("entry %d: %+v", i, e)
			}
			one, err := encodeEntry(e)
			if err != nil {
				t.Fatal(err)
			}
			anew = append(anew, one...)
		}
		if again, size := decodeJournal(anew); !reflect.DeepEqual(again, all) || size != len(anew) {
			t.Errorf("%+v, written anew and read %+v", all, again)
		}
		if len(all) > 0 {
			if again, size := decodeJournal(data[:end]); len(again) != len(all) || size != end {
				t.Errorf("%d entries up to %d, cut off there %d up to %d", len(all), end, len(again), size)
			}
		}
	})
}
