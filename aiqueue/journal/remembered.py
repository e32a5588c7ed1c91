"""A small file on the machine where `up` ran, which says what journal a system had. It outlives the Ray of that system.

So a disk that is not mounted is noticed, and a queue that a new Ray starts on another node.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from aiqueue.journal.identity import KnownJournal, decode, encode


class RememberedJournals:
    """One file for each namespace and path, below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.expanduser()

    def of(self, namespace: str, path: Path) -> KnownJournal | None:
        """Return the journal that the system in ``namespace`` had at ``path``; None if nothing is known."""
        with suppress(OSError):
            return decode(self._file(namespace, path).read_bytes())
        return None

    def note(self, namespace: str, path: Path, known: KnownJournal) -> None:
        """Keep it. Raises OSError."""
        file = self._file(namespace, path)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = file.with_name(f"{file.name}.{os.getpid()}")
        unfinished.write_bytes(encode(known))
        unfinished.replace(file)

    def _file(self, namespace: str, path: Path) -> Path:
        name = hashlib.sha256(os.fsencode(f"{namespace}\0{path}")).hexdigest()[:16]
        return self._folder / f"{name}.json"
