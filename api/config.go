package api

import (
	"context"
	"net/http"
	"time"

	"cortex"
	"cortex/config"
)

// Configuration is whoever keeps the daemon's configuration.
type Configuration interface {
	// Reload reads it again and puts it in force, or none of it. By is who orders that, via the way the order came. The error
	// is a *cortex.Error with reason config_refused around config.Problems, or another one of ours.
	Reload(ctx context.Context, by, via string) (config.Change, error)
	// Check says whether the file is what is in force. It never waits.
	Check() cortex.Check
}

// SetConfig puts settings in force for every request that comes from now on. Any goroutine may call it.
func (s *Server) SetConfig(c config.Config) {
	o := s.Options
	o.Config = c
	s.config.Store(&c)
	s.guard.Store(newGuard(o))
}

// reloadTime is how long a request waits for the configuration to be read and put in force. Reading a file of this size takes
// no time, but where its file system hangs.
const reloadTime = 10 * time.Second

// reload answers POST /config/reload, when the new configuration is in force, or refused.
func (s *Server) reload(w http.ResponseWriter, r *request) error {
	var by string
	if err := decodeBody(w, r.Request, fields{"by": takeText(&by, maxName)}); err != nil {
		return err
	}
	by, via := who(r, by)
	ctx, cancel := s.waiting(r, reloadTime)
	defer cancel()
	change, err := s.Configuration.Reload(ctx, by, via)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, ReloadDone{
		Done:       doneAt(time.Now(), reloadMessage(change), ""),
		ConfigPath: wordOf(change.Path), Changed: change.Changed, RestartRequired: change.RestartRequired,
	}, s.log)
	return nil
}

func reloadMessage(c config.Change) string {
	switch {
	case len(c.RestartRequired) > 0:
		return "Configuration reloaded; not all of it counts before a restart"
	case len(c.Changed) == 0:
		return "Configuration reloaded; nothing has changed"
	}
	return "Configuration reloaded"
}

// ReloadDone is the answer of POST /config/reload.
type ReloadDone struct {
	Done
	ConfigPath      *string  `json:"config_path"`      // of the file that was read; null: built-in defaults
	Changed         []string `json:"changed"`          // keys; they count now
	RestartRequired []string `json:"restart_required"` // keys that differ from what is in force, and count from the next start on
}

// Mistake is one thing that is wrong with a configuration.
type Mistake struct {
	File    string `json:"file"`             // or "environment"
	Line    int    `json:"line,omitempty"`   // from 1; none where it is of the whole file or of a variable
	Column  int    `json:"column,omitempty"` // from 1, where the text itself is broken
	Key     string `json:"key,omitempty"`    // table.key, [table] or variable
	Message string `json:"message"`
}

func mistakesOf(ps config.Problems) []Mistake {
	list := make([]Mistake, len(ps))
	for i, p := range ps {
		list[i] = Mistake{File: p.Source, Line: p.Line, Column: p.Column, Key: p.Key, Message: p.What}
	}
	return list
}

// Problem is m as the configuration's own packages print it.
func (m Mistake) Problem() config.Problem {
	return config.Problem{Source: m.File, Line: m.Line, Column: m.Column, Key: m.Key, What: m.Message}
}
