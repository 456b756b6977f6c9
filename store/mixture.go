package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/jmoiron/sqlx"
)

// checkMixture looks for damage, without changing anything, where a WAL lies beside a main file that is not known to be the one
// that it was written for: SQLite applies it all the same. It is called before SQLite has the files open.
func (s *Store) checkMixture() error {
	if !s.leftWAL || s.beforeOpen == s.ids.seen() {
		return nil
	}
	logged, err := walPages(s.path + "-wal")
	if err != nil {
		return err
	}
	db, err := sqlx.Open("sqlite3", dsn(s.path, "mode", "ro", "_busy_timeout", "100"))
	if err != nil {
		return err
	}
	defer db.Close()
	// A transaction that changes the size writes the first page, where it stands, too.
	var pages int64
	err = db.Get(&pages, "PRAGMA page_count")
	if err == nil && logged > 0 && logged != pages {
		return corrupt(s.path, fmt.Errorf("it has %d pages, and the log beside it, %s-wal, is of a database of %d", pages, s.path, logged))
	}
	if err == nil {
		err = undamaged(background, db, s.path)
	}
	switch troubleOf(err) {
	case locked, full:
		return nil // the write loop meets what there is
	}
	return err
}

const (
	walHeader   = 32 // bytes
	frameHeader = 24 // bytes, before each page
)

// walPages is how many pages a database has after the last whole transaction of its WAL, 0 where there is none
// (sqlite.org/fileformat2.html, 4.1 to 4.3).
func walPages(path string) (int64, error) {
	data, err := readWAL(path)
	if err != nil || len(data) < walHeader {
		return 0, err
	}
	u32 := binary.BigEndian.Uint32
	var order binary.ByteOrder = binary.LittleEndian
	if u32(data)&1 != 0 {
		order = binary.BigEndian
	}
	sum := walSum{order: order}
	sum.add(data[:24])
	salts := string(data[16:24])
	frame := frameHeader + int(u32(data[8:]))
	var pages int64
	for rest := data[walHeader:]; len(rest) >= frame && frame > frameHeader; rest = rest[frame:] {
		sum.add(rest[:8])
		sum.add(rest[frameHeader:frame])
		if string(rest[8:16]) != salts || u32(rest[16:]) != sum.a || u32(rest[20:]) != sum.b {
			break // of an earlier time, or not whole
		}
		if n := u32(rest[4:]); n != 0 {
			pages = int64(n)
		}
	}
	return pages, nil
}

// readWAL reads no more than a WAL has before a health check fails.
func readWAL(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, 2*walLimit))
	return data, errors.Join(err, f.Close())
}

// walSum is the checksum of a WAL.
type walSum struct {
	order binary.ByteOrder
	a, b  uint32
}

// add takes in a number of bytes that 8 divides.
func (s *walSum) add(data []byte) {
	for ; len(data) >= 8; data = data[8:] {
		s.a += s.order.Uint32(data) + s.b
		s.b += s.order.Uint32(data[4:]) + s.a
	}
}
