"""Which journal a system has, as it is known outside of the journal: no other may take its place unnoticed.

A disk that is not mounted, and a queue that Ray starts again beside another disk, look like a journal that was never
there. So what the last queue of a namespace had is kept where the next one finds it: in Ray's own store, and in a small
file of the user who started the system (`aiqueue.journal.remembered`), since Ray's store ends with its head unless it
is kept elsewhere.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from aiqueue.errors import StartError
from aiqueue.ids import new_job_ids
from aiqueue.journal_info import shown


class KnownJournal(msgspec.Struct, frozen=True):
    """The journal that a namespace had when it was last opened."""

    id: str
    epoch: int  #: of the queue that opened it
    path: str
    node: str  #: where it was opened: host name and address
    at: float  #: when, in seconds since the epoch


class JournalNotHere(StartError):
    """Another journal belongs to this system, and it is not what lies at the path on this node."""

    def __init__(self, message: str, node: str = "") -> None:
        super().__init__(message, node)
        self.node = node  #: that had it last; empty if that is unknown

    def __str__(self) -> str:
        return str(self.args[0])


encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(KnownJournal).decode


def decode(body: bytes | None) -> KnownJournal | None:
    """Return what was kept; None if that is nothing. Raises ValueError for what can't be read."""
    try:
        return None if body is None else _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"can't be read: {error}") from error


def new_journal_id() -> str:
    """Return the id of a journal that is made now: a UUIDv7 without its dashes."""
    return new_job_ids(1)[0].replace("-", "")


def made_at(journal_id: str) -> float:
    """Return when a journal was made, in seconds since the epoch; 0.0 for one of a release that did not note it.

    >>> made_at("01985a3000007000800000000000ff05"), made_at("2a7bd688c0794e308e081483d22b0a00")
    (1753859751.936, 0.0)
    """
    return int(journal_id[:12], 16) / 1e3 if len(journal_id) == 32 and journal_id[12] == "7" else 0.0


class Expected(NamedTuple):
    """What a queue expects to find at its journal's path."""

    known: KnownJournal | None = None  #: the journal that its system had; None: nothing is known of one
    may_begin: bool = True  #: where there is none, a new one may be made
    new: bool = False  #: also though another one is known
    node: str = ""  #: this one: host name and address
    namespace: str = ""

    def check(self, found_id: str, path: Path, commit: int = 0) -> None:
        """Raise JournalNotHere if the journal at ``path``, with this id and end, is not that of this system."""
        known = self.known
        if known is None or found_id == known.id or (self.new and not found_id):
            return
        there = f"is another one, {shown(found_id)}" if found_id else "is none"
        raise JournalNotHere(
            f"the namespace {self.namespace!r} has the journal {shown(known.id)}, last opened{_on(known.node)} as "
            f"{known.path} at {datetime.fromtimestamp(known.at, UTC):%Y-%m-%d %H:%M:%S} UTC. At {path}"
            f"{_on(self.node)} there {there}. {self._what_to_do(commit)}",
            known.node,
        )

    def check_nothing(self, path: Path) -> None:
        """Raise JournalNotHere if there must be a journal at ``path``, where nothing is."""
        self.check("", path)
        if not self.may_begin:
            raise JournalNotHere(
                f"the queue was started again{_on(self.node)}, where there is no journal {path}, and a queue that "
                f"starts again begins no new one. {self._what_to_do()}"
            )

    def lost(self, found_id: str, epoch: int) -> str:
        """Say that a journal of this system is older than what is known of it; empty if it is not."""
        if self.known is None or epoch >= self.epoch_of(found_id):
            return ""
        return f"it is an older copy: what was acknowledged since it was opened{_on(self.known.node)} is missing"

    def epoch_of(self, journal_id: str) -> int:
        """Return the highest epoch that is known of a journal."""
        return self.known.epoch if self.known and self.known.id == journal_id else 0

    def _what_to_do(self, other_ends_at: int = 0) -> str:
        option = "--new-journal`"
        if other_ends_at:
            option = (
                f"--accept-loss {other_ends_at}`, which takes the one that is there (`--new-journal` begins one only "
                "where there is none)"
            )
        back, stop = ", and start again", ""
        if not self.may_begin:
            back, stop = ": the queue waits for it, and goes on by itself", "stop the system (`aiqueue down`) and "
        return (
            f"Bring that disk or node back{back}. To go on without what is in that journal, {stop}start once with "
            f"`aiqueue up {option}"
        )


ANYTHING = Expected()


def _on(node: str) -> str:
    return f" on {node}" if node else ""
