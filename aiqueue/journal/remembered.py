"""A small file on the machine where `up` ran, which says what journal a system had. It outlives the Ray of that system.

So a disk that is not mounted is noticed, and a queue that a new Ray starts on another node.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from aiqueue.journal.identity import KnownJournal, decode, encode
from aiqueue.journal.note import write_whole
from aiqueue.journal.place import absolute


class RememberedJournals:
    """One file for each namespace and path, below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, namespace: str, path: Path) -> KnownJournal | None:
        """Return the journal that the system in ``namespace`` had at ``path``; None if nothing was noted.

        Raises OSError or ValueError for a note that can't be read.
        """
        file = self._file(namespace, path)
        try:
            return decode(file.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(f"{file} {error}") from error

    def note(self, namespace: str, path: Path, known: KnownJournal) -> None:
        """Keep it: on disk when this returns. Raises OSError."""
        file = self._file(namespace, path)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(file, encode(known), file.with_name(f"{file.name}.{os.getpid()}"))

    def _file(self, namespace: str, path: Path) -> Path:
        name = hashlib.sha256(os.fsencode(f"{namespace}\0{absolute(path)}")).hexdigest()[:16]
        return absolute(self._folder) / f"{name}.json"
