"""What the journal reads, as SQL. ``{}`` stands for the list that a question is about."""

from __future__ import annotations

from aiqueue.engine.states import TERMINAL

ENDED = "({})".format(", ".join(f"'{state}'" for state in sorted(TERMINAL)))
# A flipped bit makes a text of a blob, or the other way round: a cast brings it back, and costs the others nothing.
LIVE = f"""
    SELECT jobs.seq, CAST(id AS TEXT), CAST(header AS BLOB), CAST(coalesce(state, 'queued') AS TEXT),
        CAST(coalesce(progress, x'') AS BLOB)
    FROM jobs LEFT JOIN states USING (seq)
    WHERE state IS NULL OR CAST(state AS TEXT) NOT IN {ENDED} ORDER BY jobs.seq
"""
LAST = "SELECT coalesce((SELECT max(seq) FROM jobs), 0), coalesce((SELECT max(no) FROM batches), 0)"
SHARED = """
    SELECT CASE WHEN last_seq >= jobs.seq THEN metadata END
    FROM shared WHERE first_seq <= jobs.seq ORDER BY first_seq DESC LIMIT 1
"""
STORED = f"""
    SELECT jobs.seq, CAST(id AS TEXT), CAST(header AS BLOB), CAST(coalesce(state, '') AS TEXT),
        CAST(coalesce(progress, x'') AS BLOB), CAST({{result}} AS BLOB), CAST({{payload}} AS BLOB),
        CAST(coalesce(({SHARED}), x'') AS BLOB)
    FROM jobs LEFT JOIN states USING (seq) LEFT JOIN results USING (seq)
"""
OLD_BATCHES = """
    SELECT no FROM batch_states WHERE ended_at > 0 AND ended_at < ? AND no NOT IN ({}) ORDER BY ended_at LIMIT ?
"""
_BY_END = """
    WHERE ended_at > 0 AND (ended_at, seq) > (?, ?) AND ended_at < ? AND seq NOT IN ({}) ORDER BY ended_at, seq LIMIT ?
"""
BY_END = f"SELECT ended_at, seq, id FROM states JOIN jobs USING (seq) {_BY_END}"
SEQS_BY_END = f"SELECT seq FROM states {_BY_END}"  # an index has all of it
KEYS = "SELECT key, job_id, digest, at, coalesce(last_seq - first_seq + 1, 0), batch FROM idempotency WHERE key IN {}"
BY_AGE = "at < ? AND rowid NOT IN ({}) ORDER BY at LIMIT ?"
SIZES = """
    SELECT jobs.seq, length(payload) + coalesce(length(body), 0)
    FROM jobs LEFT JOIN results USING (seq) WHERE jobs.seq IN {}
"""
WEIGHTS = f"""
    SELECT {{key}}, length(header) + coalesce(length(progress), 0) + {{result}} + {{payload}}
        + coalesce(length(({SHARED})), 0)
    FROM jobs LEFT JOIN states USING (seq) LEFT JOIN results USING (seq) WHERE {{key}} IN {{{{}}}}
"""
ATTEMPT_SIZES = "SELECT seq, sum(length(body)) FROM attempts WHERE seq IN {} GROUP BY seq"
SCHEDULES = (
    "SELECT id, CAST(spec AS BLOB), CAST(body AS BLOB) FROM schedules JOIN schedule_states USING (id) ORDER BY id"
)
BATCHES = "SELECT no, CAST(spec AS BLOB), CAST(body AS BLOB) FROM batches JOIN batch_states USING (no)"
LIVE_PARTS = """
    SELECT no, CAST(first_seq AS INTEGER), CAST(count AS INTEGER)
    FROM batch_states CROSS JOIN parts USING (no) WHERE ended_at = 0 ORDER BY first_seq
"""
NEWEST_ID = """
    SELECT id FROM jobs WHERE id < '1' AND id GLOB '????????-????-7???-????-????????????' ORDER BY id DESC LIMIT 1
"""
OUTLINES = """
    SELECT jobs.seq, id, x'', coalesce(state, ''), x'', x'', x'', x''
    FROM jobs LEFT JOIN states USING (seq) WHERE jobs.seq IN {}
"""
DEAD_LETTER_SEQS = "SELECT seq FROM states WHERE state = 'dead_letter' AND seq < ? ORDER BY seq DESC LIMIT ?"


def stored(*, with_payload: bool, with_result: bool) -> str:
    """Return how jobs are read, with empty payloads and results where these are not asked for."""
    return STORED.format(
        payload="payload" if with_payload else "x''", result="coalesce(body, x'')" if with_result else "x''"
    )


def weights(key: str, *, with_payload: bool, with_result: bool) -> str:
    """Return the query for how many bytes ``stored`` would read of each job; ``key``: the column that names jobs."""
    payload = "length(payload)" if with_payload else "0"
    return WEIGHTS.format(key=key, payload=payload, result="coalesce(length(body), 0)" if with_result else "0")


#: Keys of lists: how many of these jobs were submitted with each.
LISTS = """
    SELECT keys.key, keys.job_id, keys.first_seq, keys.last_seq, count(*)
    FROM jobs CROSS JOIN idempotency AS keys
        ON keys.first_seq = (SELECT max(first_seq) FROM idempotency WHERE first_seq <= jobs.seq)
        AND keys.last_seq >= jobs.seq
    WHERE jobs.seq IN {} AND keys.last_seq > keys.first_seq AND keys.batch IS NULL GROUP BY keys.key
"""
#: How many of them are kept, counted up to a limit: a list may have very many.
KEPT = "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE seq BETWEEN ? AND ? LIMIT ?)"
