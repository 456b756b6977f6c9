package store

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// applicationID marks a file as cortex's (PRAGMA application_id, bytes 68 to 71 of the header): "ctx1".
const applicationID = 0x63747831

//go:embed migration/*.sql
var migrationFiles embed.FS

// A migration is one numbered SQL file; the number of the last applied one is the database's PRAGMA user_version.
type migration struct {
	number int
	name   string
	sql    string
}

// migrations holds the files in their order. One that was released is never changed, only followed by another.
var migrations = mustMigrations(migrationFiles)

func mustMigrations(files fs.FS) []migration {
	names, err := fs.Glob(files, "migration/*.sql")
	if err != nil || len(names) == 0 {
		panic(fmt.Sprintf("no migrations embedded: %v", err))
	}
	slices.Sort(names)
	var all []migration
	for i, name := range names {
		number, _, _ := strings.Cut(strings.TrimPrefix(name, "migration/"), "_")
		n, err := strconv.Atoi(number)
		if err != nil || n != i+1 {
			panic("migration out of order: " + name)
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			panic(err)
		}
		all = append(all, migration{n, name, string(text)})
	}
	return all
}

// latest is the schema that this program knows.
func latest() int { return migrations[len(migrations)-1].number }

// migrate brings the database from its version to latest, each step in a transaction of its own with its number, so that
// a crash leaves one version or the next. Called by the write loop only.
func (s *Store) migrate(version int) error {
	for _, m := range migrations[min(version, len(migrations)):] {
		if err := s.exec("BEGIN IMMEDIATE"); err != nil {
			return err
		}
		err := s.exec(m.sql)
		if err == nil {
			err = s.exec(fmt.Sprintf("PRAGMA user_version = %d", m.number))
		}
		if err == nil {
			err = s.exec("COMMIT")
		}
		if err != nil {
			s.rollback()
			return fmt.Errorf("migrate to %s: %w", m.name, err)
		}
		s.log.Info("database migrated", "to", m.name)
	}
	return nil
}
