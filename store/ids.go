package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Kinds of ids.
const (
	dispatchIDs = iota
	holdIDs
	eventIDs
	idKinds
)

// idTables are the tables in which the ids are, as sqlite_sequence names them.
var idTables = [idKinds]string{"dispatches", "holds", "events"}

// idBlocks is how many ids are reserved with one write of the file: what a crash may leave unused.
var idBlocks = [idKinds]int64{16, 16, 256}

// ids hands out ids that only rise and are never used twice, also after an older copy of the database was restored: the
// highest ever given is in a file of its own (Home/ids), reserved in blocks, exact after a clean Close. The file is a
// second line; where it is missing, torn or can't be written, the database and the folders in runs/ are enough but for
// that case.
type ids struct {
	path string
	log  *slog.Logger

	mu       sync.Mutex
	used     [idKinds]int64 // guarded by mu
	reserved [idKinds]int64 // what the file says; guarded by mu
	main     stamp          // guarded by mu
	writing  bool           // the main file is about to be written by us: another stamp of it means nothing; guarded by mu
	warned   bool           // guarded by mu
}

// stamp tells whether the main file is the one that cortex last saw.
type stamp struct {
	Inode   uint64 `json:"inode"`
	Size    int64  `json:"size"`
	MTimeNS int64  `json:"mtime_ns"`
}

// stampOf looks at a file without opening it; the zero stamp where there is none.
func stampOf(path string) stamp {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return stamp{}
	}
	return stamp{st.Ino, st.Size, st.Mtim.Nano()}
}

// idFile is the file's format.
type idFile struct {
	Format     int   `json:"format"`
	Dispatches int64 `json:"dispatches"`
	Holds      int64 `json:"holds"`
	Events     int64 `json:"events"`
	Main       stamp `json:"main"` // cortex.db as cortex last saw it
	Writing    bool  `json:"writing,omitempty"`
}

// openIDs reads the file in home and the highest folder in runs.
func openIDs(home, runs string, log *slog.Logger) (*ids, error) {
	g := &ids{path: filepath.Join(home, "ids"), log: log}
	data, err := os.ReadFile(g.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the highest ids: %w", err)
	}
	var f idFile
	if err == nil {
		if err := json.Unmarshal(data, &f); err != nil {
			log.Warn("the file of the highest ids is damaged and begun anew", "file", g.path, "err", err)
			f = idFile{}
		}
	}
	g.used = [idKinds]int64{max(f.Dispatches, 0), max(f.Holds, 0), max(f.Events, 0)}
	g.reserved, g.main = g.used, f.Main
	if f.Writing { // a crash in the middle of a checkpoint: whether somebody else has changed the file since, nobody knows
		g.main = stamp{}
	}
	folders, err := os.ReadDir(runs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for the highest id in runs: %w", err)
	}
	for _, d := range folders {
		if id, err := strconv.ParseInt(d.Name(), 10, 64); err == nil && id > g.used[dispatchIDs] {
			g.used[dispatchIDs] = id
		}
	}
	return g, nil
}

// take returns the next id of a kind, which the file knows as used before it is returned.
func (g *ids) take(kind int) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used[kind]++
	if g.used[kind] > g.reserved[kind] {
		old := g.reserved
		g.reserved[kind] = g.used[kind] + idBlocks[kind] - 1
		if !g.save() {
			g.reserved = old
		}
	}
	return g.used[kind]
}

// given is what the write loop has taken so far: ids of holds and events, which nobody else takes.
func (g *ids) given() [idKinds]int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.used
}

// rewind takes back what was given for a transaction that was then rolled back, so that tries on a full disk use up none.
func (g *ids) rewind(to [idKinds]int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used[holdIDs], g.used[eventIDs] = to[holdIDs], to[eventIDs]
}

// see notes that an id is used, by whomever.
func (g *ids) see(kind int, id int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used[kind] = max(g.used[kind], id)
}

// highest is the highest id of a kind that is used or was.
func (g *ids) highest(kind int) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.used[kind]
}

// seen is the main file as it was when cortex last saw it.
func (g *ids) seen() stamp {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.main
}

// mark notes how the main file looks now.
func (g *ids) mark(now stamp) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.main == now && !g.writing {
		return
	}
	g.main, g.writing = now, false
	g.save()
}

// intend notes that the main file is about to be written by a checkpoint; mark ends that.
func (g *ids) intend() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.writing {
		g.writing = true
		g.save()
	}
}

// close makes the file exact.
func (g *ids) close(now stamp) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reserved, g.main, g.writing = g.used, now, false
	g.save()
}

// save writes the file durably. That it can't is told once, not to the caller: nothing but the restore of an older copy
// depends on it. The caller holds mu.
func (g *ids) save() bool {
	f := idFile{1, g.reserved[dispatchIDs], g.reserved[holdIDs], g.reserved[eventIDs], g.main, g.writing}
	data, err := json.Marshal(f)
	if err == nil {
		err = replaceFile(g.path, append(data, '\n'))
	}
	if err != nil && !g.warned {
		g.log.Warn("the file of the highest ids can't be written", "file", g.path, "err", err)
	}
	g.warned = err != nil
	return err == nil
}

// replaceFile makes path hold data, durably and as a whole.
func replaceFile(path string, data []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp) // best effort: the error above is the one to tell
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes created and renamed names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
