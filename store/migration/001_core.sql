-- Dispatches, holds, events. No table is STRICT: an sqlite3 before 3.37 (RHEL 9, Debian 11) can't open a database that has
-- one, and operators use the sqlite3 of their system. What that lets in is tolerated by the readers (row.go).

CREATE TABLE dispatches (
	id               INTEGER PRIMARY KEY AUTOINCREMENT,
	bead_id          TEXT NOT NULL,
	project          TEXT DEFAULT '',
	agent            TEXT DEFAULT '',
	provider         TEXT DEFAULT '',
	tier             TEXT DEFAULT '',
	pid              INTEGER,
	tty              TEXT,
	session_name     TEXT,
	status           TEXT NOT NULL DEFAULT 'pending'
		CHECK (status IN ('pending', 'pending_retry', 'running', 'completed', 'failed', 'cancelled')),
	stage            TEXT DEFAULT '',
	priority         INTEGER DEFAULT 2,
	created_at       TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
	dispatched_at    TEXT,
	completed_at     TEXT,
	updated_at       TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
	exit_code        INTEGER,
	signal           INTEGER,
	duration_s       REAL,
	retries          INTEGER DEFAULT 0,
	failure_category TEXT,
	failure_summary  TEXT,
	stopped_by       TEXT,
	input_tokens     INTEGER,
	output_tokens    INTEGER,
	cost_usd         REAL,
	attempts         INTEGER DEFAULT 0, -- starts so far: the number of the newest folder runs/<id>/<attempt>
	accepted         INTEGER DEFAULT 0, -- 1: came in through cortex and has a spec; else it is never started
	given_back       INTEGER DEFAULT 0, -- how many of the attempts started nothing and used up no retry
	last_given_back  INTEGER DEFAULT 0, -- the newest of these
	finished_attempt INTEGER DEFAULT 0, -- the attempt whose end cortex has recorded
	stop_order       TEXT,              -- JSON of the stop that is being carried out
	idempotency_key  TEXT,              -- the submitter's name for this request, used once
	request_hash     TEXT               -- of that request, to tell a repetition from another one
);

CREATE INDEX dispatches_pick ON dispatches (status, priority, id);
CREATE INDEX dispatches_bead ON dispatches (bead_id, id);
CREATE UNIQUE INDEX dispatches_key ON dispatches (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX dispatches_started ON dispatches (dispatched_at);

-- What an operator deleted. The intake of runs/ at start leaves these alone; a restored backup has no such row for what was
-- deleted after it was made, so that the intake then works.
CREATE TABLE forgotten (
	dispatch_id INTEGER PRIMARY KEY,
	deleted_at  TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
	waited      INTEGER DEFAULT 0 -- 1: it waited, and that its deletion is its cancel has yet to be told
);

CREATE TRIGGER dispatches_forget AFTER DELETE ON dispatches
WHEN old.status <> 'running'
BEGIN
	INSERT OR IGNORE INTO forgotten (dispatch_id, waited)
		VALUES (old.id, old.accepted = 1 AND old.status IN ('pending', 'pending_retry'));
END;

CREATE TRIGGER dispatches_remember AFTER INSERT ON dispatches
BEGIN
	DELETE FROM forgotten WHERE dispatch_id = new.id;
END;

-- Counters that never fall, whatever rows are deleted.
CREATE TABLE totals (
	name TEXT PRIMARY KEY,
	n    INTEGER NOT NULL DEFAULT 0
);
INSERT INTO totals (name) VALUES ('failed');

CREATE TRIGGER dispatches_failed AFTER UPDATE OF status ON dispatches
WHEN new.status = 'failed' AND old.status <> 'failed'
BEGIN
	UPDATE totals SET n = n + 1 WHERE name = 'failed';
END;

CREATE TABLE holds (
	id            INTEGER PRIMARY KEY AUTOINCREMENT,
	kind          TEXT DEFAULT 'operator',
	scope         TEXT DEFAULT 'all',
	reason        TEXT DEFAULT '',
	"by"          TEXT DEFAULT '',
	via           TEXT DEFAULT '',
	since         TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
	until         TEXT,
	lifted_at     TEXT,
	lifted_by     TEXT,
	lifted_reason TEXT
);

CREATE INDEX holds_unlifted ON holds (id) WHERE lifted_at IS NULL;

CREATE TABLE events (
	id          INTEGER PRIMARY KEY AUTOINCREMENT,
	event_type  TEXT NOT NULL,
	type        TEXT DEFAULT 'info', -- the severity
	message     TEXT DEFAULT '',
	details     TEXT DEFAULT '',     -- a JSON object, or empty
	dispatch_id INTEGER,
	bead_id     TEXT,
	created_at  TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);

CREATE INDEX events_time ON events (created_at, id);
CREATE INDEX events_dispatch ON events (dispatch_id, id);

CREATE VIEW health_events AS
	SELECT id, event_type, type, message, details, dispatch_id, bead_id, created_at FROM events;

-- Orders of the stop journal that are in this database already: a crash between the commit and the journal's reset must not
-- pause again what was resumed meanwhile.
CREATE TABLE applied_orders (
	key        TEXT PRIMARY KEY,
	applied_at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);
