"""The tables of a server, and each statement that is sent to it.

A store is one row, which says what the newest commit is. Its records and snapshots are rows of their own. Their texts
are those of docs/format.md: the body of a record, and a YAML document with a person's comments.

No statement is made of names: values are parameters, or are quoted by libpq (`link.Link.literal`).
"""

from __future__ import annotations

#: For `pstate init`, and for the first program that opens a state. It may be run again.
DDL = """\
CREATE SCHEMA IF NOT EXISTS pstate;
CREATE TABLE IF NOT EXISTS pstate.store (
    id       uuid PRIMARY KEY,
    name     text NOT NULL UNIQUE,
    format   smallint NOT NULL DEFAULT 1,
    rev      bigint NOT NULL,
    head     uuid NOT NULL,
    watched  timestamptz NOT NULL DEFAULT '-infinity',
    begun    timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS pstate.record (
    store    uuid NOT NULL,
    rev      bigint NOT NULL,
    token    uuid NOT NULL,
    edit     boolean NOT NULL DEFAULT false,
    body     text NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    by       text NOT NULL DEFAULT '',
    PRIMARY KEY (store, rev)
);
CREATE TABLE IF NOT EXISTS pstate.snapshot (
    store    uuid NOT NULL,
    rev      bigint NOT NULL,
    document text NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (store, rev)
);
"""

#: What `pstate init --sql` prints after the tables.
GRANTS = """\
-- A role for programs that change states.
CREATE ROLE pstate_write NOLOGIN;
GRANT USAGE ON SCHEMA pstate TO pstate_write;
GRANT SELECT, INSERT, UPDATE ON pstate.store TO pstate_write;
GRANT SELECT, INSERT, DELETE ON pstate.record TO pstate_write;
GRANT SELECT, INSERT, UPDATE, DELETE ON pstate.snapshot TO pstate_write;

-- A role for programs that only read states.
CREATE ROLE pstate_read NOLOGIN;
GRANT USAGE ON SCHEMA pstate TO pstate_read;
GRANT SELECT ON pstate.store, pstate.record, pstate.snapshot TO pstate_read;

-- Then, for each user of the database: GRANT pstate_write TO "the user";
"""

#: What has to be right before anything else is asked, and which session this is. The function, because a database may
#: have taken the view pg_stat_activity from its users.
SESSION = """\
SELECT current_setting('server_encoding'), current_setting('synchronous_commit'), pg_backend_pid(),
  (SELECT backend_start FROM pg_stat_get_activity(pg_backend_pid()))"""

#: End a session of ours that was lost, which the server may take for one that goes on.
TERMINATE = """\
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1::int AND backend_start = $2::timestamptz"""

#: Record 0 is made with the store: each later one can name the token of the record before it.
BEGIN_STORE = """\
WITH s AS (
  INSERT INTO pstate.store (id, name, rev, head) VALUES ($1::uuid, $2, 0, $3::uuid)
  ON CONFLICT (name) DO NOTHING RETURNING id
), r AS (
  INSERT INTO pstate.record (store, rev, token, body) SELECT id, 0, $3::uuid, '[]' FROM s
)
INSERT INTO pstate.snapshot (store, rev, document) SELECT id, 0, '{}' || chr(10) FROM s"""

#: The store, its newest snapshot, and the records from there on: one statement, so all is of one moment.
LOAD = """\
WITH s AS (SELECT id, rev, head, format FROM pstate.store WHERE name = $1), n AS (
  SELECT rev, document FROM pstate.snapshot WHERE store = (SELECT id FROM s) ORDER BY rev DESC LIMIT 1
)
SELECT 0 AS part, rev, id::text, head::text, format::text FROM s
UNION ALL SELECT 1, rev, NULL, NULL, document FROM n
UNION ALL SELECT 2, rev, NULL, token::text, body FROM pstate.record
  WHERE store = (SELECT id FROM s) AND rev >= (SELECT rev FROM n)
ORDER BY part, rev"""

#: The first row is the record that we know as the last, which shows that the server has our history.
CATCH_UP = """\
SELECT r.rev, r.token, r.edit, CASE WHEN r.edit THEN n.document ELSE r.body END
FROM pstate.store s JOIN pstate.record r ON r.store = s.id
  LEFT JOIN pstate.snapshot n ON r.edit AND n.store = r.store AND n.rev = r.rev
WHERE s.id = $1::uuid AND r.rev >= $2::bigint ORDER BY r.rev"""

#: Read committed: the records that were committed while we waited for the lock must be seen.
BEGIN = """\
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL lock_timeout = {patience};
SET LOCAL idle_in_transaction_session_timeout = {lease}"""
LOCK = "SELECT rev FROM pstate.store WHERE id = $1::uuid FOR UPDATE"

#: Compares the newest commit, and sets it. {mine} chooses the row.
_COMMIT = """\
WITH {mine}head AS (
  UPDATE pstate.store SET rev = rev + 1, head = $4::uuid
  WHERE {chosen}
  RETURNING id, rev, watched > now() AS watched
), put AS (
  INSERT INTO pstate.record (store, rev, token, body, by, edit) SELECT id, rev, $4::uuid, $5, $6, $7::boolean FROM head
)
SELECT rev, CASE WHEN watched THEN pg_notify('pstate_' || replace(id::text, '-', ''), rev::text) END FROM head"""
_IS_HEAD = "id = $1::uuid AND rev = $2::bigint AND head = $3::uuid"

#: In a transaction that has the lock, or that may wait for it.
COMMIT = _COMMIT.format(mine="", chosen=_IS_HEAD)
#: Without: it waits for nobody, and finds no row where somebody has the lock.
TRY = _COMMIT.format(
    mine=f"mine AS (SELECT id FROM pstate.store WHERE {_IS_HEAD} FOR UPDATE SKIP LOCKED), ",
    chosen="id = (SELECT id FROM mine)",
)

#: The outcome of a commit whose answer was lost.
OUTCOME = "SELECT token FROM pstate.record WHERE store = $1::uuid AND rev = $2::bigint"

#: The session whose block we have waited for. Others' sessions may be hidden from us: then the columns are NULL.
HOLDER = """\
SELECT a.application_name, a.usename, host(a.client_addr), extract(epoch FROM now() - a.xact_start)::float8
FROM pstate.store s JOIN pg_stat_activity a ON a.backend_xid = s.xmax WHERE s.id = $1::uuid"""

#: The process of the session, and the channel on which `_COMMIT` tells of each commit.
CHANNEL = "SELECT pg_backend_pid(), 'pstate_' || replace($1::uuid::text, '-', '')"
NOTIFY = "SELECT pg_notify($1, $2)"

#: Somebody watches: commits notify for the next minute. It waits for nobody. Whether that is so.
WATCHED = """\
WITH mine AS (
  SELECT id FROM pstate.store WHERE id = $1::uuid AND watched < now() + interval '40 seconds' FOR UPDATE SKIP LOCKED
), told AS (
  UPDATE pstate.store SET watched = now() + interval '60 seconds' WHERE id = (SELECT id FROM mine) RETURNING id
)
SELECT EXISTS (SELECT FROM told)
  OR EXISTS (SELECT FROM pstate.store WHERE id = $1::uuid AND watched >= now() + interval '40 seconds')"""

#: From the oldest snapshot up to revision $2, without what comes before an edit: the snapshot, and the records.
HISTORY = """\
WITH n AS (
  SELECT rev, document FROM pstate.snapshot WHERE store = $1::uuid AND rev <= $2::bigint AND rev >= coalesce(
    (SELECT max(rev) FROM pstate.record WHERE store = $1::uuid AND rev <= $2::bigint AND edit), 0
  ) ORDER BY rev LIMIT 1
)
SELECT 1 AS part, rev, NULL AS token, document FROM n
UNION ALL SELECT 2, rev, token::text, body FROM pstate.record
  WHERE store = $1::uuid AND rev >= (SELECT rev FROM n) AND rev <= $2::bigint
ORDER BY part, rev"""

#: A snapshot that somebody else has made since ours.
NEWER_SNAPSHOT = """\
SELECT rev, document FROM pstate.snapshot WHERE store = $1::uuid AND rev > $2::bigint AND rev <= $3::bigint
ORDER BY rev DESC LIMIT 1"""

#: What a revision says never changes, so nobody has to be kept out.
SNAPSHOT = """\
INSERT INTO pstate.snapshot (store, rev, document) SELECT $1::uuid, $2::bigint, $3 WHERE EXISTS
  (SELECT FROM pstate.record WHERE store = $1::uuid AND rev = $2::bigint AND token = $4::uuid)
ON CONFLICT (store, rev) DO UPDATE SET document = excluded.document"""

#: What is older than $2 seconds goes, and what is more than $3 revisions old, but not what comes after the snapshot
#: before the last one. Nothing goes from in between: a block has the time of its beginning.
FORGET_RECORDS = """\
DELETE FROM pstate.record r WHERE r.store = $1::uuid
  AND r.rev < (SELECT n.rev FROM pstate.snapshot n WHERE n.store = $1::uuid ORDER BY n.rev DESC OFFSET 1 LIMIT 1)
  AND r.rev < greatest(
    (SELECT max(n.rev) FROM pstate.snapshot n WHERE n.store = $1::uuid) - $3::bigint,
    (SELECT coalesce(min(k.rev), r.rev + 1) FROM pstate.record k WHERE k.store = $1::uuid
      AND k.at >= now() - make_interval(secs => $2::float8)))"""
FORGET_SNAPSHOTS = """\
DELETE FROM pstate.snapshot n WHERE n.store = $1::uuid
  AND n.rev < (SELECT min(r.rev) FROM pstate.record r WHERE r.store = $1::uuid)"""

# ----------------------------------------------------------------------------- what the command line asks for, no log

HAS_TABLES = "SELECT to_regclass('pstate.snapshot') IS NOT NULL"

HAS_STORE = "SELECT id FROM pstate.store WHERE name = $1"

#: As BEGIN_STORE, with a document. Sent again with the same id, it does nothing.
CREATE_STORE = """\
WITH s AS (
  INSERT INTO pstate.store (id, name, rev, head) VALUES ($1::uuid, $2, 0, $3::uuid) ON CONFLICT DO NOTHING RETURNING id
), r AS (
  INSERT INTO pstate.record (store, rev, token, body, by) SELECT id, 0, $3::uuid, '[]', $5 FROM s
)
INSERT INTO pstate.snapshot (store, rev, document) SELECT id, 0, $4 FROM s"""

#: Each state, or the one called $1: what it takes to read it, and its newest commit.
STORES = """\
SELECT s.name, s.rev, octet_length(n.document) + (
    SELECT coalesce(sum(octet_length(r.body)), 0) FROM pstate.record r WHERE r.store = s.id AND r.rev > n.rev
  ), to_char(h.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), h.by
FROM pstate.store s
  JOIN pstate.record h ON h.store = s.id AND h.rev = s.rev
  JOIN LATERAL (SELECT rev, document FROM pstate.snapshot WHERE store = s.id ORDER BY rev DESC LIMIT 1) n ON true
WHERE $1::text = '' OR s.name = $1 ORDER BY s.name"""

#: The sessions that have a name of ours, and the one that has the lock of the state called $1.
SESSIONS = """\
SELECT a.application_name, a.usename, host(a.client_addr), s.id IS NOT NULL AS holds,
  extract(epoch FROM now() - a.xact_start)::float8
FROM pg_stat_activity a LEFT JOIN pstate.store s ON s.xmax = a.backend_xid AND s.name = $1
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
  AND (s.id IS NOT NULL OR a.application_name LIKE 'pstate %') ORDER BY a.application_name, a.pid"""

#: How safe a commit is.
SETTINGS = "SELECT current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes')"
