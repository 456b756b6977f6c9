package store

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cortex"
	"cortex/internal/fault"
	"cortex/runner/record"
)

// The stop journal is a file of fixed size, written with real zeros when it is made, so that an order to stop is durable
// where the database is locked and no byte of the disk is free. (On a file system that copies on write, btrfs say, a full
// disk refuses it all the same.)
//
//	magic, 8 bytes
//	entries: length of the JSON, 4 bytes; CRC-32C of sequence and JSON, 4; sequence, 8; JSON
//
// Numbers are little endian. The list ends at the first entry that is not whole or whose sequence is not the last one's
// plus 1. When all is in the database the used part is filled with zeros again. An entry that is found again after a crash
// is known by its key (table applied_orders).
const (
	journalSize  = 256 << 10
	journalMagic = "ctxstop1"
	entryHead    = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Orders that may be journalled.
const (
	opPause  = "pause"
	opStop   = "stop"
	opCancel = "cancel"
)

// An entry is one order that the database could not take in time.
type entry struct {
	Seq     uint64        `json:"-"`
	Key     string        `json:"key"`
	Op      string        `json:"op"`
	At      time.Time     `json:"at"`
	Hold    *cortex.Hold  `json:"hold,omitempty"`
	ID      int64         `json:"id,omitempty"`
	Attempt int           `json:"attempt,omitempty"`
	Order   *record.Order `json:"order,omitempty"`
	Actor   string        `json:"actor,omitempty"`
	Event   *cortex.Event `json:"event,omitempty"`
}

// journal is the open file.
type journal struct {
	path    string
	log     *slog.Logger
	atStart []entry

	writing sync.Mutex // held while the file is written, which may hang
	f       *os.File   // nil where the file could not be made; guarded by writing
	seq     uint64     // of the last entry; guarded by writing

	mu     sync.Mutex
	since  time.Time       // when the write that goes on began, else zero; guarded by mu, as are the next three
	broken error           // why it can't be used
	end    int64           // where the next entry goes; changed with writing held
	left   map[string]bool // keys of entries that are not applied yet
}

// openJournal opens the file, making it where it is not there. That it can't be made is no error: orders then depend on the
// database alone, and the health check says so.
func openJournal(home string, log *slog.Logger) (*journal, error) {
	j := &journal{path: filepath.Join(home, "stop.journal"), log: log, left: map[string]bool{}}
	data, err := os.ReadFile(j.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read the stop journal: %w", err)
	case len(data) != journalSize || !bytes.HasPrefix(data, []byte(journalMagic)):
		aside := fmt.Sprintf("%s.damaged-%d", j.path, time.Now().Unix())
		log.Error("the stop journal is damaged; it is set aside", "file", aside)
		if err := os.Rename(j.path, aside); err != nil {
			return nil, fmt.Errorf("set the damaged stop journal aside: %w", err)
		}
	default:
		var size int
		j.atStart, size = decodeJournal(data)
		j.end = int64(size)
		for _, e := range j.atStart {
			j.left[e.Key] = true
			j.seq = e.Seq
		}
	}
	j.broken = j.ready()
	if j.broken != nil {
		log.Error("no stop journal: orders given while the database is locked will fail", "err", j.broken)
	}
	return j, nil
}

// ready opens the file, or makes it. The caller holds writing or is alone.
func (j *journal) ready() error {
	if j.f != nil {
		return nil
	}
	f, err := os.OpenFile(j.path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := replaceFile(j.path, append([]byte(journalMagic), make([]byte, journalSize-len(journalMagic))...)); err != nil {
			return err
		}
		j.setEnd(int64(len(journalMagic)))
		f, err = os.OpenFile(j.path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return err
	}
	j.f = f
	return nil
}

// decodeJournal reads the entries up to the first that is not whole, and where that begins.
func decodeJournal(data []byte) ([]entry, int) {
	var all []entry
	at := len(journalMagic)
	for at+entryHead <= len(data) {
		head := data[at : at+entryHead]
		size := int64(binary.LittleEndian.Uint32(head))
		seq := binary.LittleEndian.Uint64(head[8:])
		if size == 0 || size > int64(len(data)-at-entryHead) {
			break
		}
		body := data[at+8 : at+entryHead+int(size)]
		if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
			break
		}
		if len(all) > 0 && seq != all[len(all)-1].Seq+1 {
			break // what is left of an earlier use
		}
		e := entry{Seq: seq}
		if json.Unmarshal(body[8:], &e) != nil || e.Key == "" {
			break
		}
		all = append(all, e)
		at += entryHead + int(size)
	}
	return all, at
}

func encodeEntry(e entry) ([]byte, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	data := make([]byte, entryHead+len(body))
	binary.LittleEndian.PutUint32(data, uint32(len(body)))
	binary.LittleEndian.PutUint64(data[8:], e.Seq)
	copy(data[entryHead:], body)
	binary.LittleEndian.PutUint32(data[4:], crc32.Checksum(data[8:], castagnoli))
	return data, nil
}

var (
	errJournalFull  = errors.New("the stop journal is full: too many orders wait for the database")
	errUnknownOrder = errors.New("unknown order")
)

// append makes e durable and returns it with its key, a new one where it has none.
func (j *journal) append(e entry) (entry, error) {
	j.writing.Lock()
	defer j.writing.Unlock()
	e.Key, e.Seq = cmp.Or(e.Key, rand.Text()), j.seq+1
	data, err := encodeEntry(e)
	if err != nil {
		return e, err
	}
	full := false
	err = j.busy(func() error {
		if err := j.ready(); err != nil {
			return err
		}
		if full = j.end+int64(len(data)) > journalSize; full {
			return nil
		}
		return j.write(data, j.end)
	})
	switch {
	case err != nil:
		return e, fmt.Errorf("write the stop journal: %w", err)
	case full:
		return e, errJournalFull
	}
	j.seq = e.Seq
	j.mu.Lock()
	defer j.mu.Unlock()
	j.end += int64(len(data))
	j.left[e.Key] = true
	return e, nil
}

// reset notes that orders are in the database, and empties the file when all are.
func (j *journal) reset(applied map[string]bool) error {
	j.writing.Lock()
	defer j.writing.Unlock()
	if j.forget(applied) > 0 || j.f == nil {
		return nil
	}
	first := int64(len(journalMagic))
	err := j.busy(func() error { return j.write(make([]byte, j.end-first), first) })
	if err == nil {
		j.setEnd(first)
	}
	return err
}

// forget drops the keys of entries that are applied, and returns how many are left.
func (j *journal) forget(applied map[string]bool) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	for key := range applied {
		delete(j.left, key)
	}
	return len(j.left)
}

func (j *journal) setEnd(end int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.end = end
}

// busy runs write, and notes since when and with what outcome.
func (j *journal) busy(write func() error) error {
	j.mu.Lock()
	j.since = time.Now()
	j.mu.Unlock()
	err := write()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.since, j.broken = time.Time{}, err
	return err
}

// write writes durably. With writing held.
func (j *journal) write(data []byte, at int64) error {
	fault.Point("journal.write")
	if _, err := j.f.WriteAt(data, at); err != nil {
		return err
	}
	return unix.Fdatasync(int(j.f.Fd()))
}

// found is what was in the file when it was opened.
func (j *journal) found() []entry { return slices.Clone(j.atStart) }

// close waits for a write that goes on, but not for one that hangs: the file is closed then with the process.
func (j *journal) close() error {
	closed := make(chan error, 1)
	go func() {
		j.writing.Lock()
		defer j.writing.Unlock()
		if j.f == nil {
			closed <- nil
			return
		}
		closed <- j.f.Close()
	}()
	patience := time.NewTimer(commitPatience)
	defer patience.Stop()
	select {
	case err := <-closed:
		return err
	case <-patience.C:
		return fmt.Errorf("close the stop journal: %w", ErrHung)
	}
}

func (j *journal) check() cortex.Check {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := cortex.Check{Name: "stop_journal", OK: true, Detail: fmt.Sprintf("%d orders wait for the database", len(j.left))}
	switch {
	case !j.since.IsZero() && time.Since(j.since) > lockPatience:
		c.OK, c.Detail = false, fmt.Sprintf("a write to it has hung since %s", j.since.Format(time.TimeOnly))
		c.Hint = fmt.Sprintf("The file system of %s does not answer (dmesg, df): what waits for its answer goes on when it does.", j.path)
	case j.broken != nil:
		c.OK, c.Detail = false, j.broken.Error()
		c.Hint = fmt.Sprintf("Orders to stop fail while the database is locked. See why %s can't be written.", j.path)
	case j.end > journalSize*3/4:
		c.OK, c.Detail = false, fmt.Sprintf("%d orders wait for the database; it is nearly full", len(j.left))
		c.Hint = "Free the database's lock (the check \"database\" names who holds it)."
	}
	return c
}

// applyJournal writes the orders that are so far only in the journal. It is a part of the group's transaction.
func (s *Store) applyJournal(t *tx) error {
	waiting := s.mem.waitingOrders()
	if len(waiting) == 0 {
		return nil
	}
	for _, e := range waiting {
		err := t.savepoint(func(t *tx) error { return t.apply(e) })
		if errors.Is(err, errUnknownOrder) {
			s.log.Error("an order of the stop journal is not known to this version and is dropped", "op", e.Op, "dispatch", e.ID)
		} else if err != nil {
			return err // it stays in force and in the journal
		}
		t.applied[e.Key] = true
	}
	return t.event(cortex.Event{Type: cortex.EventJournalReplayed, Severity: cortex.Info,
		Message: fmt.Sprintf("%d orders given while the database could not be written are now in it", len(waiting))})
}

// apply writes one order, unless it was written before a crash that came before the journal was emptied.
func (t *tx) apply(e entry) error {
	first, err := t.once(e.Key)
	if err != nil || !first {
		return err
	}
	switch {
	case e.Op == opPause && e.Hold != nil:
		_, err = t.pause(*e.Hold, e.At)
	case e.Op == opStop && e.Order != nil:
		err = t.orderStop(e.ID, e.Attempt, *e.Order, e.eventAt())
	case e.Op == opCancel:
		_, err = t.cancelPending(e.ID, e.Actor, e.At)
	default:
		err = errUnknownOrder
	}
	if errors.Is(err, ErrNotPending) || errors.Is(err, ErrNotRunning) || errors.Is(err, ErrNotFound) {
		return nil // it ended meanwhile
	}
	return err
}

// once notes that the order of that key is carried out, and reports whether it was not before.
func (t *tx) once(key string) (bool, error) {
	n, err := t.exec("INSERT OR IGNORE INTO applied_orders (key, applied_at) VALUES (?, ?)", key, timeText(t.now))
	return n > 0, err
}

// eventAt is the order's event, dated when it was given.
func (e entry) eventAt() cortex.Event {
	if e.Event == nil {
		return cortex.Event{}
	}
	ev := *e.Event
	if ev.CreatedAt == nil {
		ev.CreatedAt = &e.At
	}
	return ev
}

// JournalOrders is what was in the stop journal when the store was opened, and what came in since and is not in the database
// yet: the stops that were ordered while that was locked, by dispatch, the newest of each. The store itself writes them into
// the database; to carry them out is the caller's.
func (s *Store) JournalOrders() map[int64]*record.Order {
	all := map[int64]*record.Order{}
	for _, e := range append(s.journal.found(), s.mem.waitingOrders()...) {
		if e.Op == opStop && e.Order != nil {
			all[e.ID] = e.Order
		}
	}
	return all
}
