"""The lock file that keeps a second queue off a journal."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import IO

from aiqueue.errors import StartError
from aiqueue.journal.place import absolute

_WAIT_S, _LOOK_S = 5.0, 0.1


def lock(path: Path) -> IO[str]:
    """Return the lock of the journal at ``path``, held while it is open. Raises StartError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = open(os.open(_lock_path(path), os.O_RDWR | os.O_CREAT, 0o600), "r+")  # noqa: SIM115  # held while open
    except OSError as error:
        raise StartError(f"can't create the journal {path}: {error.strerror}; set journal.path") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise _in_use(path) from error
    return file


def wait_until_free(path: Path, *, limit_s: float | None = None) -> None:
    """Return when no queue has the journal at ``path``, without taking it: a queue that was killed needs a moment.

    Raises StartError after ``limit_s`` (5 s). Whatever else is wrong with the file is for the queue to say.
    """
    try:
        file = os.open(_lock_path(absolute(path)), os.O_RDWR)
    except OSError:
        return
    try:
        give_up_at = time.monotonic() + (_WAIT_S if limit_s is None else limit_s)
        while not _is_free(file):
            if time.monotonic() > give_up_at:
                raise _in_use(path)
            time.sleep(_LOOK_S)  # flock has no time limit of its own
    finally:
        os.close(file)


def _lock_path(path: Path) -> Path:
    return Path(f"{os.path.realpath(path)}.lock")  # beside the database, also where the path is a link to it


def _is_free(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _in_use(path: Path) -> StartError:
    return StartError(
        f"the journal {path} is in use by another queue; end that one, or give this one its own journal.path"
    )
