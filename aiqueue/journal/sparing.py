"""What a commit can delete where pages of the database are damaged.

SQLite can't delete a row whose pages it can't follow to their end, and after one such try it writes nothing more in
that transaction. So deletes are tried and rolled back, all of them, half of them, and so on, until each row at fault is
known. Then the commit is tried with all others. If they can't be deleted together (two rows that share a page, say), it
is tried with half of them, and so on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from aiqueue.engine.effects import Rows
from aiqueue.engine.states import TERMINAL, JobState
from aiqueue.journal.failures import is_damage
from aiqueue.journal.passed_over import PassedOver
from aiqueue.journal.rows import chunks, marks, old_batches, without_deleted, write_rows

_T = TypeVar("_T")
_OVER = TERMINAL - {JobState.DEAD_LETTER}


def spare(writer: sqlite3.Connection, rows: Rows, passed: PassedOver) -> Rows:
    """Return ``rows`` without what can't be deleted, which retention skips from now on.

    Return ``rows`` itself if it can't be written without that either.
    """
    dropped = [*rows.dropped, *_old_batches(writer, rows.batches_before, passed)]
    steps: list[tuple[str, Any]] = [
        *(("deletes", seq) for seq in rows.deletes),
        *(("dropped", number) for number in dropped),
        *(("free_keys", key) for key in rows.free_keys),
        *(("key_times", key) for key in rows.key_times),
    ]
    rest = replace(without_deleted(rows), batches_before=0.0)

    def only(some: Sequence[tuple[str, Any]]) -> Rows:
        return replace(rest, **_by_name(some))

    if not steps or not _can_write(writer, only([])):
        return rows
    sound = _that_work(steps, lambda some: _can_write(writer, Rows(**_by_name(some))))
    done = only(_that_work(sound, lambda some: _can_write(writer, only(some)), together=True))
    left = sorted(set(rows.deletes).difference(done.deletes))
    passed.add("jobs", left)
    passed.add("batches", set(dropped).difference(done.dropped))
    over = replace(done, states=[*done.states, *_over(writer, left)])
    return over if _can_write(writer, over) else done


def _by_name(steps: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return steps as fields of Rows."""
    found: dict[str, list[Any]] = {"deletes": [], "dropped": [], "free_keys": [], "key_times": []}
    for name, item in steps:
        found[name].append(item)
    return found


def _old_batches(writer: sqlite3.Connection, before: float, passed: PassedOver) -> Sequence[int]:
    try:
        return old_batches(writer, before, passed.listed("batches")) if before else ()
    except sqlite3.DatabaseError:  # retention can't read them either, and asks no more
        return ()


def _can_write(writer: sqlite3.Connection, rows: Rows) -> bool:
    writer.execute("BEGIN IMMEDIATE")
    try:
        write_rows(writer, rows)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return False
    finally:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
    return True


def _over(writer: sqlite3.Connection, seqs: Sequence[int]) -> list[tuple[int, str, bytes, float]]:
    """Return states for jobs that should be gone: none of them is a dead letter any more, or runs after a restart."""
    found: dict[int, str] = {}
    try:
        for part in chunks(seqs):
            found.update(writer.execute(f"SELECT seq, state FROM states WHERE seq IN {marks(part)}", part))
    except sqlite3.DatabaseError:
        return []
    return [(seq, JobState.CANCELLED.value, b"", 1.0) for seq in seqs if found.get(seq) not in _OVER]


def _that_work(items: Sequence[_T], works: Callable[[Sequence[_T]], bool], *, together: bool = False) -> list[_T]:
    """Return the items that work beside their neighbours. An item at fault costs as much as a few tries of all items.

    ``together``: each part is tried with all that was found before, so that what is returned works at once.

    >>> _that_work([1, 2, 3, 4, 5], lambda some: 4 not in some)
    [1, 2, 3, 5]
    >>> _that_work([1, 2, 3, 4], lambda some: sum(some) < 7, together=True)
    [1, 2, 3]
    """
    found: list[_T] = []
    parts = [items]
    while parts:
        part = parts.pop()
        if works([*found, *part] if together else part):
            found += part
        elif len(part) > 1:
            half = len(part) // 2
            parts += [part[half:], part[:half]]
    return found
