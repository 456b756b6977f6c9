package tmux

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxNames bounds the search for a free name.
const maxNames = 10000

// Session is one session on a server. Id and server together are never used twice.
type Session struct {
	Server  Server
	ID      string // "$3"
	Name    string
	Owner   string // user option @cortex: the state folder of who made it; empty for the user's own
	Tag     string // user option @cortex_run; empty also for a control session
	Created time.Time
	PanePID int // the process that was started in its active pane
}

// New is a session to be opened.
type New struct {
	Name          string                     // wanted: letters, digits, - and _; -2, -3 ... is appended where it is taken
	Argv          func(name string) []string // the pane's command, told the name that the session gets; two words at least
	Tag           string                     // what the session is for
	Columns, Rows int                        // 200 x 50 where 0
}

// NewSession opens a session and starts its command. It starts a server where none runs. The command may have ended, and
// the session with it, by the time this returns. Errors: ErrUnavailable, ErrHung, ErrRefused, ErrLostReply.
func (c *Client) NewSession(ctx context.Context, w New) (Session, error) {
	ctx, cancel := deadline(ctx)
	defer cancel()
	name, again := w.Name, false
	for range maxNames {
		s, err := c.tryName(ctx, w, name)
		if !errors.Is(err, errNotOpened) {
			return s, err
		}
		next, listErr := c.freeName(ctx, w.Name, name)
		if listErr != nil {
			return Session{}, listErr
		}
		if next == name && again { // it was not because of the name, nor of one that has gone meanwhile
			return Session{}, fmt.Errorf("open tmux session %s: %w", name, err)
		}
		name, again = next, next == name
	}
	return Session{}, fmt.Errorf("%w: %d sessions are called %s", ErrRefused, maxNames, w.Name)
}

// errNotOpened: new-session itself failed, perhaps because the name is taken.
var errNotOpened = fmt.Errorf("%w to open it", ErrRefused)

func (c *Client) tryName(ctx context.Context, w New, name string) (Session, error) {
	argv := w.Argv(name)
	if err := check(w, argv); err != nil {
		return Session{}, err
	}
	// After "--" nothing of the command is taken for an option, and of two words or more nothing goes through a shell.
	open := []string{"new-session", "-d", "-E", "-P", "-F", "#{session_id}:#{session_created}:#{pane_pid}:#{session_name}",
		"-s", name, "-x", dimension(w.Columns, 200), "-y", dimension(w.Rows, 50), "--"}
	commands := append([][]string{append(open, argv...)}, c.settings("="+name+":", w.Tag)...)
	replies, conn, err := c.run(ctx, true, commands...)
	if err != nil {
		return Session{}, fmt.Errorf("open tmux session %s: %w", name, err)
	}
	if replies[0].failed {
		return Session{}, fmt.Errorf("%w: %s", errNotOpened, replies[0].text())
	}
	id, rest, _ := strings.Cut(replies[0].text(), ":")
	fields := strings.SplitN(rest, ":", 3)
	if len(fields) != 3 {
		return Session{}, fmt.Errorf("open tmux session %s: tmux answered %q", name, replies[0].text())
	}
	seconds, err := strconv.ParseInt(fields[0], 10, 64)
	pane, perr := strconv.Atoi(fields[1])
	if err = errors.Join(err, perr); err != nil {
		return Session{}, fmt.Errorf("open tmux session %s: tmux answered %q", name, replies[0].text())
	}
	s := Session{Server: conn.server, ID: id, Name: fields[2], Owner: fromOption(c.owner), Tag: w.Tag, Created: time.Unix(seconds, 0), PanePID: pane}
	if replies[len(replies)-1].failed {
		return c.settle(ctx, conn, s)
	}
	return s, nil
}

// settings are the options that a session of ours needs, whatever the user's are. They are set in the sequence that opens
// it: with destroy-unattached it would be gone before a second one. Its name is the only address known there. The pane's own
// remain-on-exit stands above the window's, which hooks that run later (window-linked) may set.
func (c *Client) settings(target, tag string) [][]string {
	return [][]string{
		{"set-option", "-t", target, "destroy-unattached", "off"},
		{"set-option", "-t", target, "@cortex", c.owner},
		{"set-option", "-t", target, "@cortex_run", optionValue(tag)},
		{"set-option", "-p", "-t", target, "remain-on-exit", "off"},
		{"set-option", "-w", "-t", target, "window-size", "manual"},
	}
}

// settle sets the options of a session that had another name by the time they were set the first time: a hook
// (after-new-session) runs between the commands of a sequence and may have renamed it, or ended it.
func (c *Client) settle(ctx context.Context, conn *conn, s Session) (Session, error) {
	replies, err := conn.do(ctx, append(c.settings(s.ID, s.Tag), []string{"display-message", "-p", "-t", s.ID + ":", "#{session_name}"})...)
	if err != nil {
		return s, fmt.Errorf("set the options of tmux session %s (%s): %w", s.Name, s.ID, err)
	}
	last := replies[len(replies)-1]
	if last.failed {
		return s, fmt.Errorf("tmux session %s (%s) was opened, and renamed or ended at once, by a hook in the tmux configuration "+
			"(tmux show-hooks -g) or by its command: %w: %s", s.Name, s.ID, ErrRefused, last.text())
	}
	s.Name = last.text()
	return s, nil
}

// check refuses what tmux would take for something else.
func check(w New, argv []string) error {
	if w.Name == "" || w.Name[0] == '-' || strings.Trim(w.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
		return fmt.Errorf("tmux session name %q: only letters, digits, - and _, and no - in front", w.Name)
	}
	if len(argv) < 2 {
		return fmt.Errorf("command %q of tmux session %s: a single word would go through a shell", argv, w.Name)
	}
	for _, a := range argv {
		if strings.IndexByte(a, 0) >= 0 {
			return fmt.Errorf("command %q of tmux session %s: NUL byte", argv, w.Name)
		}
	}
	return nil
}

func dimension(n, fallback int) string {
	if n <= 0 {
		n = fallback
	}
	return strconv.Itoa(min(n, 10000)) // as tmux bounds it (WINDOW_MAXIMUM)
}

// numbered is name, name-2, name-3 ...
func numbered(name string, n int) string {
	if n == 1 {
		return name
	}
	return name + "-" + strconv.Itoa(n)
}

// freeName returns tried where no session has that name, else the first that is free.
func (c *Client) freeName(ctx context.Context, wanted, tried string) (string, error) {
	sessions, err := c.list(ctx)
	if err != nil {
		return "", err
	}
	taken := map[string]bool{}
	for _, s := range sessions {
		taken[s.Name] = true
	}
	if !taken[tried] {
		return tried, nil
	}
	for n := 1; ; n++ {
		if name := numbered(wanted, n); !taken[name] {
			return name, nil
		}
	}
}

// Kill ends a session and what runs in it. It is nil also when the session is gone, or its server is gone or another one
// now; it is ErrNotOurs when owner or tag are no more what s says.
func (c *Client) Kill(ctx context.Context, s Session) error {
	ctx, cancel := deadline(ctx)
	defer cancel()
	for {
		err := c.kill(ctx, s)
		// An end can be ordered twice: where the answer was lost with the connection, look again over the next one.
		if !errors.Is(err, ErrLostReply) || errors.Is(err, ErrHung) {
			return err
		}
	}
}

func (c *Client) kill(ctx context.Context, s Session) error {
	now, conn, err := c.look(ctx, s)
	if err != nil || now == nil {
		return err
	}
	if now.owner != optionValue(s.Owner) || now.tag != optionValue(s.Tag) {
		return fmt.Errorf("kill tmux session %s (%s): %w", s.Name, s.ID, ErrNotOurs)
	}
	replies, err := conn.do(ctx, []string{"kill-session", "-t", s.ID})
	if errors.Is(err, errNotSent) {
		err = ErrLostReply // as good as: look again
	}
	if err != nil {
		return fmt.Errorf("kill tmux session %s (%s): %w", s.Name, s.ID, err)
	}
	if !replies[0].failed {
		return nil
	}
	if now, _, err = c.look(ctx, s); err != nil || now == nil { // it ended meanwhile
		return err
	}
	return fmt.Errorf("kill tmux session %s (%s): %w: %s", s.Name, s.ID, ErrRefused, replies[0].text())
}

// look returns what the server says of s; nil where s is gone.
func (c *Client) look(ctx context.Context, s Session) (*row, *conn, error) {
	// A target that is not there is no error here: tmux then shows the control session.
	replies, conn, err := c.run(ctx, false, []string{"display-message", "-p", "-t", s.ID + ":", rowFormat})
	if errors.Is(err, errNoServer) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("look for tmux session %s (%s): %w", s.Name, s.ID, err)
	}
	if !conn.server.same(s.Server) || replies[0].failed {
		return nil, conn, nil
	}
	r, ok := parseRow(replies[0].text())
	if !ok || r.id != s.ID {
		return nil, conn, nil
	}
	return &r, conn, nil
}

// Sessions lists all sessions of the server, the user's own and the control session among them. It starts no server: where
// none runs there are none.
func (c *Client) Sessions(ctx context.Context) ([]Session, error) {
	ctx, cancel := deadline(ctx)
	defer cancel()
	for {
		sessions, err := c.list(ctx)
		if !errors.Is(err, ErrLostReply) || errors.Is(err, ErrHung) {
			return sessions, err
		}
	}
}

func (c *Client) list(ctx context.Context) ([]Session, error) {
	replies, conn, err := c.run(ctx, false, listCommand)
	if errors.Is(err, errNoServer) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list tmux sessions: %w", err)
	}
	if replies[0].failed {
		return nil, fmt.Errorf("list tmux sessions: %w: %s", ErrRefused, replies[0].text())
	}
	var sessions []Session
	for _, r := range parseRows(replies[0]) {
		sessions = append(sessions, Session{
			Server: conn.server, ID: r.id, Name: r.name, Owner: fromOption(r.owner), Tag: fromOption(r.tag), Created: r.created, PanePID: r.pane,
		})
	}
	c.mu.Lock()
	c.sessions = len(sessions)
	c.mu.Unlock()
	return sessions, nil
}

// row is one session as the server lists it. Names have no colons (tmux makes them _), nor has a tag of ours (optionValue);
// an owner that somebody else wrote may, and is last.
type row struct {
	id      string
	created time.Time
	pane    int
	control bool
	name    string
	tag     string
	owner   string
}

const rowFormat = "#{session_id}:#{session_created}:#{pane_pid}:#{@cortex_control}:#{session_name}:#{@cortex_run}:#{@cortex}"

var listCommand = []string{"list-sessions", "-F", rowFormat}

func list(ctx context.Context, conn *conn) ([]row, error) {
	replies, err := conn.do(ctx, listCommand)
	if err != nil {
		return nil, err
	}
	if replies[0].failed {
		return nil, fmt.Errorf("%w: %s", ErrRefused, replies[0].text())
	}
	return parseRows(replies[0]), nil
}

func parseRows(r reply) []row {
	var rows []row
	for _, line := range r.lines {
		if row, ok := parseRow(line); ok { // a newline in somebody's option makes lines that are none
			rows = append(rows, row)
		}
	}
	return rows
}

func parseRow(line string) (row, bool) {
	f := strings.SplitN(line, ":", 7)
	if len(f) != 7 || !strings.HasPrefix(f[0], "$") {
		return row{}, false
	}
	seconds, err := strconv.ParseInt(f[1], 10, 64)
	pane, perr := strconv.Atoi(f[2])
	if err != nil || perr != nil {
		return row{}, false
	}
	return row{
		id: f[0], created: time.Unix(seconds, 0), pane: pane, control: f[3] == "on", name: f[4], tag: f[5], owner: f[6],
	}, true
}
