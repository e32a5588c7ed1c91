"""What became of the jobs that were submitted with idempotency keys, read 10,000 rows at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

_ROWS = 10_000  # that one hold of the reader's lock looks at; some 10 ms
_KEYS = """
    SELECT rowid, key, job_id, coalesce(first_seq, 1), coalesce(last_seq, 0) FROM idempotency WHERE {}
"""
_ENDS = """
    SELECT EXISTS (
        SELECT 1 FROM jobs LEFT JOIN states USING (seq)
        WHERE jobs.seq BETWEEN :first AND :last AND coalesce(ended_at, 0) <= 0
    ), coalesce((SELECT max(ended_at) FROM states WHERE seq BETWEEN :first AND :last), 0)
"""
# Asked last: the end of a job that is deleted meanwhile is noted in ``at``.
_NOTED = """
    SELECT EXISTS (SELECT 1 FROM batch_states WHERE no = batch AND ended_at <= 0),
        max(at, coalesce((SELECT ended_at FROM batch_states WHERE no = batch), 0))
    FROM idempotency WHERE rowid = ?
"""


def old_keys(
    reader: sqlite3.Connection, lock: AbstractContextManager[object], which: str, asked: Sequence[float]
) -> Iterator[tuple[int, object, object, object, float]]:
    """Yield rowid, key, job id, whether a job of it lives, and the last end, of keys until they have 10,000 jobs.

    ``which``: the condition for keys as SQL, ``asked``: its values. ``lock`` is held while ``reader`` reads, and given
    back every 10,000 rows: the list of a key may be long. Raises ValueError for a key whose seqs are no numbers.
    """
    with lock:
        keys = reader.execute(_KEYS.format(which), asked).fetchall()
        (newest,) = reader.execute("SELECT coalesce(max(seq), 0) FROM jobs").fetchone()
    rows = 0
    for rowid, key, job_id, first, last in keys:
        if rows >= _ROWS:
            return
        if type(first) is not int or type(last) is not int:
            raise ValueError(f"{first} to {last} are no numbers of jobs")
        rows += last - first + 1
        lives, ended_at = _of_jobs(reader, lock, max(first, 1), min(last, newest))  # damaged numbers may be any
        with lock:
            noted = reader.execute(_NOTED, (rowid,)).fetchone()
        if noted is not None:  # else it has been freed
            yield rowid, key, job_id, lives or noted[0], max(ended_at, float(noted[1]))


def _of_jobs(
    reader: sqlite3.Connection, lock: AbstractContextManager[object], first: int, last: int
) -> tuple[bool, float]:
    """Return whether one of some jobs lives, and the last end of those that were looked at: all, if none lives."""
    ended_at = 0.0
    for start in range(first, last + 1, _ROWS):
        with lock:
            lives, end = reader.execute(_ENDS, {"first": start, "last": min(last, start + _ROWS - 1)}).fetchone()
        ended_at = max(ended_at, float(end))
        if lives:
            return True, ended_at
    return False, ended_at
