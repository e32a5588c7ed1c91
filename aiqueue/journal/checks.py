"""What is checked before a journal is opened: that it is whole, and holds all that was ever acknowledged.

The checks write nothing, so that a journal that is refused stays as it was found: a connection that may write would
fold what is left of a damaged WAL into the database and remove the rest of it.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from aiqueue.errors import StartError
from aiqueue.journal import schema
from aiqueue.journal.head import Mark, checksum_of, head_path, read_mark
from aiqueue.journal.identity import Expected, new_journal_id

_log = logging.getLogger(__name__)
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR}
_READ_BYTES = 4 * 2**30  # beyond, a database is not read as a whole: a restart must not take minutes
_NUMBERED = 4  # the first schema whose commits have numbers

_GO_ON = (
    "What to do: put back what is missing (the database, its -wal and its .head belong together) or a backup. "
    "To go on with what is there, start once with `aiqueue up --accept-loss {commit}` (journal.accept_loss)"
)


def expect(path: Path, expected: Expected) -> None:
    """Raise JournalNotHere if there must be a journal at ``path`` and nothing is: before anything is made there."""
    try:
        is_nothing = not path.exists() and not head_path(path).exists()
    except OSError:  # the lock can't be made there either, and says why
        return
    if is_nothing:
        expected.check_nothing(path)


def inspect(path: Path, expected: Expected, *, accept_loss: int | None, must_be_whole: bool) -> Mark:
    """Return where the journal at ``path`` has come to, which need not exist.

    Raises StartError if it is damaged, is not what is ``expected`` there, or ends before a commit that was
    acknowledged; ``accept_loss``, the number that the refusal names, lets the last two pass. Not ``must_be_whole``
    (``durability`` below full): a lost end is only logged, since a power cut takes an end, but never the file or a
    start. Raises sqlite3.Error for what is no database.
    """
    problem = ""
    try:
        head = read_mark(path)
    except ValueError as error:
        head, problem = None, str(error)
    mark, is_there = _read_database(path), _is_there(path)
    last = mark if mark.commit or head is None else head  # the head knows what was here, where nothing is any more
    if not (is_there or head or problem):
        expected.check_nothing(path)
    elif not last.commit or accept_loss != last.commit:
        expected.check(last.id if last.commit else "", path, last.commit)
    problem = problem or _changed(path, mark, head) or _replaced(path, mark, head, expected)
    lost = "" if problem else _lost(path, mark, head)
    if problem or lost:
        said = f"the journal {path} ends at commit {mark.commit}, but {problem or lost}"
        must_be_whole = must_be_whole or bool(problem) or not is_there
        _refuse_or_log(said, last.commit, accept_loss, must_be_whole=must_be_whole)
    # Beyond all numbers that are known where a loss was accepted: one that was acknowledged never names another commit.
    journal_id = mark.id or (head.id if head else "") or new_journal_id()
    epochs = [mark.epoch, head.epoch if head else 0, expected.epoch_of(journal_id)]
    return Mark(journal_id, max(epochs), max(mark.commit, head.commit if head else 0))


def _is_there(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _read_database(path: Path) -> Mark:
    """Return the mark of the database at ``path``. Raises StartError if it is damaged."""
    if not _is_there(path):
        return Mark("", 0, 0)
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            schema.refuse_newer(version, path)
            if is_small(path):
                (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if state != "ok":
                    raise damaged(path, state)
            mark = _numbers(connection, path) if version >= _NUMBERED else Mark("", 0, 0)
    except (sqlite3.DatabaseError, UnicodeError) as error:
        if says_damaged(error):
            raise damaged(path, str(error)) from error
        raise
    return mark


def says_damaged(error: Exception) -> bool:
    """Return True if a damaged database raised this at a start: a text in it, or the message about it, may be no UTF-8.

    Any I/O error counts then; ``failures.is_damage`` is for a commit, where a failed write is no damage."""
    code = getattr(error, "sqlite_errorcode", 0)
    return isinstance(error, UnicodeError) or is_no_text(error) or code & 0xFF in _DAMAGED


def is_no_text(error: Exception) -> bool:
    """Return True if a text in the database is no UTF-8: Python's module says so, and not SQLite with a code."""
    return isinstance(error, sqlite3.OperationalError) and not hasattr(error, "sqlite_errorcode")


@contextmanager
def refused_if_damaged(path: Path) -> Iterator[None]:
    """Raise StartError where the block finds that the database at ``path`` is damaged."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if says_damaged(error):
            raise damaged(path, str(error)) from error
        raise


def is_small(path: Path) -> bool:
    """Tell whether a database may be read as a whole at a start or a stop: about 0.5 s for a gigabyte."""
    return path.stat().st_size <= _READ_BYTES


def _numbers(connection: sqlite3.Connection, path: Path) -> Mark:
    row = connection.execute("SELECT journal, epoch, number, stored, one FROM counters").fetchone()
    if row and (tuple(map(type, row)) != (str, int, int, int, int) or row[4] != 1):
        raise damaged(path, f"its counters are no numbers: {row}")
    return Mark(*row[:3]) if row else Mark("", 0, 0)


def damaged(path: Path, what: str) -> StartError:
    """Return the refusal of a damaged journal."""
    return StartError(
        f"the journal {path} is damaged ({' '.join(what.split())}); nothing was changed. Restore a backup, or save "
        "what can be read into a new database; docs/operations.md says how"
    )


def _changed(path: Path, mark: Mark, head: Mark | None) -> str:
    """Say that the database file is not as it was when the journal was closed; empty if it is, or was never closed."""
    if head is None or not head.checksum or mark[:3] != head[:3] or checksum_of(path) == head.checksum:
        return ""
    return "its content is not what it was when the queue was stopped: it is damaged, or someone changed it"


def _replaced(path: Path, mark: Mark, head: Mark | None, expected: Expected) -> str:
    """Say that a database is not the one that was here last; empty if it is, with its end or without."""
    if head and mark.id not in ("", head.id):
        return f"{head_path(path)} belongs to another journal"
    if head and mark.epoch < head.epoch and mark.commit >= head.commit:
        return "it is an older copy that went on elsewhere: what was acknowledged since is missing"
    return expected.lost(mark.id or (head.id if head else ""), max(mark.epoch, head.epoch if head else 0))


def _lost(path: Path, mark: Mark, head: Mark | None) -> str:
    """Say what a database lacks at its end that its head knows of; empty if nothing."""
    if head is None:
        return f"{head_path(path)} is missing, so nobody can tell whether it is complete" if mark.commit else ""
    if mark.commit < head.commit:
        return f"{head.commit - mark.commit} of {head.commit} acknowledged commits are missing at its end"
    return ""


def _refuse_or_log(said: str, commit: int, accept_loss: int | None, *, must_be_whole: bool) -> None:
    if accept_loss == commit:
        _log.warning("%s; going on without it, as journal.accept_loss says", said)
    elif must_be_whole:
        raise StartError(f"{said}; nothing was changed. {_GO_ON.format(commit=commit)}")
    else:
        _log.warning("%s: journal.durability is below full, so a power cut may have taken it; going on", said)
