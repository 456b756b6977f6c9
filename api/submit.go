package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cortex"
	"cortex/internal/fault"
	"cortex/runner/record"
)

// Limits of what execve(2) takes. The kernel refuses what is beyond with E2BIG, and then nobody would know which one.
const (
	maxArg = 128<<10 - 1 // bytes of one argument or NAME=value, without its NUL (MAX_ARG_STRLEN)
	maxAll = 2<<20 - 8<<10
	perArg = 9 // the NUL, and the pointer that counts since Linux 4.13
)

const maxTimeout = 10 * 365 * day

// submission is the body of POST /dispatches.
type submission struct {
	command               []string
	bead, project         string
	agent, provider, tier string
	workdir               string
	env                   map[string]string
	priority              int
	timeout               time.Duration
	maxRetries            int
	notBefore             time.Time
	notBeforeText         json.RawMessage // as it was asked for: "1h" is the same request later
	key                   string
}

// submit answers POST /dispatches: 201, when the dispatch is durable; 200 with the dispatch that there is already where its
// key was used for the same request.
func (s *Server) submit(w http.ResponseWriter, r *request) error {
	sub := submission{project: "default", priority: cortex.PriorityDefault}
	if err := decodeBody(w, r.Request, sub.fields()); err != nil {
		return err
	}
	if err := sub.takeHeader(r.Header.Values("Idempotency-Key")); err != nil {
		return err
	}
	spec, err := s.specOf(sub)
	if err != nil {
		return err
	}
	fault.Point("submit.decoded")
	d, repeated, err := s.Sched.Submit(r.Context(), spec)
	if err != nil {
		return err
	}
	fault.Point("submit.accepted")
	w.Header().Set("Location", fmt.Sprintf("/dispatches/%d", d.ID))
	if repeated {
		if d, err = s.get(r.Context(), d.ID); err != nil {
			return err
		}
		writeJSON(w, http.StatusOK, s.detail(d), s.log)
		return nil
	}
	writeJSON(w, http.StatusCreated, detailOf(d, &spec), s.log)
	return nil
}

func (sub *submission) fields() fields {
	return fields{
		"command":  takeStrings(&sub.command),
		"bead_id":  takeName(&sub.bead),
		"project":  takeName(&sub.project),
		"agent":    takeName(&sub.agent),
		"provider": takeName(&sub.provider),
		"tier":     takeName(&sub.tier),
		"workdir":  takeString(&sub.workdir),
		"env":      takeMap(&sub.env),
		"priority": takeInt(&sub.priority, cortex.PriorityFirst, cortex.PriorityLast),
		"timeout":  takeDuration(&sub.timeout, time.Millisecond, maxTimeout),
		"max_retries": func(v value) error {
			if err := takeInt(&sub.maxRetries, 0, 1000)(v); err != nil || sub.maxRetries == 0 {
				return err
			}
			return notAvailable(v)
		},
		"not_before": func(v value) error {
			sub.notBeforeText = v.raw
			return takeTime(&sub.notBefore, time.Now())(v)
		},
		"prompt":          notAvailable,
		"after":           notAvailable,
		"idle_timeout":    notAvailable,
		"idempotency_key": takeName(&sub.key),
	}
}

// takeHeader takes the key from the header Idempotency-Key, which may say the same as the field.
func (sub *submission) takeHeader(given []string) error {
	for _, key := range given {
		quoted, err := json.Marshal(key)
		if err != nil {
			return err
		}
		was := sub.key
		if err := takeName(&sub.key)(value{"Idempotency-Key", quoted}); err != nil {
			return err
		}
		if was != "" && was != sub.key {
			return badValue("idempotency_key", "two different keys are given")
		}
	}
	return nil
}

// hash tells a repetition from another request: it is of all that was asked for but the key.
func (sub *submission) hash() (string, error) {
	text, err := json.Marshal(map[string]any{
		"command": sub.command, "bead_id": sub.bead, "project": sub.project, "agent": sub.agent, "provider": sub.provider,
		"tier": sub.tier, "workdir": sub.workdir, "env": sub.env, "priority": sub.priority, "timeout": sub.timeout,
		"max_retries": sub.maxRetries,
	})
	if err == nil && sub.notBeforeText != nil { // what did not ask for it hashes as before
		text = append(text, sub.notBeforeText...)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), err
}

// specOf checks what was asked for against this host and completes it.
func (s *Server) specOf(sub submission) (record.Spec, error) {
	if err := sub.checkNames(); err != nil {
		return record.Spec{}, err
	}
	workdir, err := checkWorkdir(sub.workdir)
	if err != nil {
		return record.Spec{}, err
	}
	if err := checkEnv(sub.env); err != nil {
		return record.Spec{}, err
	}
	var request string
	if sub.key != "" {
		if request, err = sub.hash(); err != nil {
			return record.Spec{}, err
		}
	}
	settings := s.config.Load().Runner
	spec := record.Spec{
		Format: record.Format, Bead: sub.bead, Project: sub.project,
		Agent: sub.agent, Provider: sub.provider, Tier: sub.tier, Priority: sub.priority,
		Key: sub.key, Request: request,
		Command: sub.command, Env: dispatchEnv(os.Environ(), sub.env), Workdir: workdir, Stdin: record.StdinPTY,
		TimeoutMS: sub.timeout.Milliseconds(),
		GraceMS:   settings.Grace.Milliseconds(),
		OutputMax: settings.OutputMax,
		NoCgroup:  !settings.Cgroup,
		Columns:   settings.Columns,
		Rows:      settings.Rows,
	}
	if !sub.notBefore.IsZero() {
		spec.NotBefore = &sub.notBefore
	}
	return spec, checkSize(spec.Command, spec.Env)
}

func (sub *submission) checkNames() error {
	switch {
	case len(sub.command) == 0 && sub.agent != "":
		return notBuilt("An agent without a command")
	case len(sub.command) == 0:
		return &cortex.Error{Reason: cortex.ReasonMissingCommand, Message: "There is no command to run",
			Hint: `give one as a list of its arguments: {"command": ["make", "test"], …}`}
	case sub.command[0] == "":
		return badValue("command[0]", "the name of the program is empty")
	case sub.bead == "":
		return &cortex.Error{Reason: cortex.ReasonBadValue, Message: "bead_id: want the name of the work item, got nothing",
			Hint: `give one: {"bead_id": "cortex-abc.123", …}`}
	case sub.project == "":
		return badValue("project", "want a name, got nothing")
	}
	return nil
}

// takeName takes the name of a bead, a project and the like: one line.
func takeName(into *string) func(value) error {
	return func(v value) error {
		if err := takeText(into, maxName)(v); err != nil {
			return err
		}
		if strings.ContainsAny(*into, "\n\t") {
			return badValue(v.name, "control characters are not allowed")
		}
		return nil
	}
}

func tooLong(name string, got, most int) error {
	return badValue(name, fmt.Sprintf("want at most %d bytes, got %d", most, got))
}

// checkWorkdir completes a directory and looks that one can work there, now: it may still go away before the start, and
// then the dispatch fails with spawn_error.
func checkWorkdir(dir string) (string, error) {
	bad := func(what, hint string) (string, error) {
		return "", &cortex.Error{Reason: cortex.ReasonBadWorkdir, Message: "workdir: " + what, Hint: hint}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/"
	}
	switch {
	case dir == "" || dir == "~":
		dir = home
	case strings.HasPrefix(dir, "~/"):
		dir = filepath.Join(home, dir[2:])
	case !filepath.IsAbs(dir):
		return bad(fmt.Sprintf("%q is not absolute", clip(dir)), "begin it with / or ~/")
	}
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		if broken, ok := errors.AsType[*fs.PathError](err); ok {
			err = broken.Err
		}
		return bad(fmt.Sprintf("%q can't be used: %v", clip(dir), err), "create it, or name another")
	case !info.IsDir():
		return bad(fmt.Sprintf("%q is not a directory", clip(dir)), "name a directory")
	}
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.X_OK, unix.AT_EACCESS); err != nil {
		return bad(fmt.Sprintf("%q can't be entered: %v", clip(dir), err), "chmod u+x it, or name another")
	}
	return dir, nil
}

// checkSize refuses what execve would.
func checkSize(command []string, env []record.Raw) error {
	total := 0
	for i, arg := range command {
		if len(arg) > maxArg {
			return tooLong(fmt.Sprintf("command[%d]", i), len(arg), maxArg)
		}
		total += len(arg) + perArg
	}
	for _, entry := range env {
		if len(entry) > maxArg {
			name, _, _ := strings.Cut(string(entry), "=")
			return tooLong("env."+name, len(entry), maxArg)
		}
		total += len(entry) + perArg
	}
	if total > maxAll {
		return &cortex.Error{Reason: cortex.ReasonBadValue,
			Message: fmt.Sprintf("command: with the environment it is %d bytes, and the kernel takes at most %d", total, maxAll),
			Hint:    "hand large input to the command in a file"}
	}
	return nil
}
