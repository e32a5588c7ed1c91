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


def is_damage(error: BaseException) -> bool:
    """Return True if an error says that a page of the database is broken or can't be read."""
    code = _code(error)
    return code & 0xFF == sqlite3.SQLITE_CORRUPT or code == sqlite3.SQLITE_IOERR_READ


def _code(error: BaseException) -> int:
    return int(getattr(error, "sqlite_errorcode", 0))
