"""What an error of the database means: that the disk is full, that pages are damaged, or that the rows are wrong."""

from __future__ import annotations

import sqlite3

NOT_THE_DISK = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.NotSupportedError,
    sqlite3.ProgrammingError,
    ArithmeticError,
    TypeError,
    ValueError,
)  #: a commit that fails with one of these fails every time


def is_full(error: BaseException) -> bool:
    """Return True if an error says that the disk has no room."""
    code = _code(error)
    return code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE


def is_write_error(error: BaseException) -> bool:
    """Return True if the system refused a write. SQLite does not say why: a quota that is used up is one reason."""
    return _code(error) == sqlite3.SQLITE_IOERR_WRITE


def is_damage(error: BaseException) -> bool:
    """Return True if an error says that a page of the database is broken or can't be read."""
    code = _code(error)
    return code & 0xFF == sqlite3.SQLITE_CORRUPT or code == sqlite3.SQLITE_IOERR_READ


def what_to_do(error: BaseException) -> str:
    """Return what a person can do about a commit that fails, to follow a semicolon. The writer tries on in any case."""
    if is_damage(error):
        return 'a page of its database is broken: stop the queue and mend it (docs/operations.md, "is damaged")'
    if is_full(error):
        return "make room on its disk, the queue goes on by itself"
    if _code(error) & 0xFF == sqlite3.SQLITE_BUSY:
        return "another program holds its write lock: end that one, the queue tries again and goes on by itself"
    disk = "disk (is a quota used up?)" if is_write_error(error) else "disk"
    return f"see to its {disk}, the queue tries again and goes on by itself"


def _code(error: BaseException) -> int:
    return int(getattr(error, "sqlite_errorcode", 0))
