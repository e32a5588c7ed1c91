"""The lock file that keeps a second queue off a journal."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from aiqueue.errors import StartError


def lock(path: Path) -> IO[str]:
    """Return the lock of the journal at ``path``, held while it is open. Raises StartError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = open(os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600), "r+")  # noqa: SIM115  # held while open
    except OSError as error:
        raise StartError(f"can't create the journal {path}: {error.strerror}; set journal.path") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise StartError(
            f"the journal {path} is in use by another queue; end that one, or give this one its own journal.path"
        ) from error
    return file
