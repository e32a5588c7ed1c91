"""What the queue asks of its journal. SQLite is the embedded one; the protocol leaves room for a database server.

One writer: ``commit`` is only called from the writer thread. Reads may run in another thread at the same time and see
the last commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from aiqueue.engine.effects import Rows
from aiqueue.engine.engine import StoredRow


class StoredJob(NamedTuple):
    """A job as the journal has it, whatever its state. ``state`` is empty while it has never been claimed."""

    seq: int
    id: str
    header: bytes
    state: str
    progress: bytes
    result: bytes
    payload: bytes


class Recovered(NamedTuple):
    """What a restart begins with: the counters (empty for a new journal) and the jobs that have not ended, by seq."""

    counters: bytes
    rows: Iterator[StoredRow]


class Journal(Protocol):
    """Durable storage of rows."""

    def commit(self, rows: Rows) -> None:
        """Make ``rows`` durable, all or none of them. Raises OSError or the database's error when it can't."""
        ...

    def reopen(self) -> None:
        """Make the journal fit to be written again after a commit failed. Raises if it still can't be."""
        ...

    def recover(self) -> AbstractContextManager[Recovered]:
        """Open what is needed to load the engine."""
        ...

    def payloads(self, seqs: Sequence[int]) -> dict[int, bytes]:
        """Return payloads by seq."""
        ...

    def jobs(self, ids: Iterable[str], *, with_payload: bool = False) -> dict[str, StoredJob]:
        """Return the jobs that are known, by id."""
        ...

    def close(self) -> None:
        """Let go of the journal. Nothing is lost without it."""
        ...
