"""Faults that end the queue's process, and what the next one must know of them.

An engine that raised may be wrong in memory, so nothing more is asked of it: the process ends, and the next one begins
with what is on disk. The calls that were under way are noted beside the journal first. Their callers repeat them; a
call that was alone when the process ended is refused from then on for an hour, others of them are carried out alone,
so that only the one at fault is refused. What no caller could do without for an hour (a worker's claims, ticks) is put
off instead, for longer with each fault. A job that was in hand at three faults is set aside when the journal is loaded.
The note holds hashes and job ids, no payloads.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType

import msgspec

from aiqueue.engine.records import JobRecord
from aiqueue.journal.base import Journal, JournalRefused
from aiqueue.protocol import Wire, encode
from aiqueue.service.clock import Clock

_log = logging.getLogger(__name__)
_BLAMED_S = 3_600.0
_SET_ASIDE = 3  # faults at one job
_KEPT, _KEPT_ALIKE = 100, 8  # faults in the note, and those of one call among them
_NOTE_TRIES = 60
_TICK_FAULTS, _LONGEST_PAUSE_S = 3, 60.0
COMMIT = "a commit"  #: what a fault is about where the journal refuses rows
_SILENT = "its process ended without a word: it was killed, or it hung"


class Fault(Wire):
    """One exception that ended the process."""

    at: float
    what: str  #: the kind of command, or what was done with what came of it
    inputs: tuple[str, ...] = ()  #: hashes of the calls under way
    alone: bool = False  #: nothing else was asked of the engine in that step
    job: str = ""  #: the job that the engine had in hand


class Note(Wire):
    """What is kept beside the journal."""

    restarts: int = 0  #: that nobody asked for
    restarted_at: float = 0.0
    reason: str = ""  #: of the last one
    pending: str = ""  #: why this process ends, for the next one
    faults: tuple[Fault, ...] = ()


_decode = msgspec.msgpack.Decoder(Note).decode


def hash_of(*words: object) -> str:
    """Return what a call is known by: short, and of no use to a reader."""
    return hashlib.blake2b("\x1f".join(map(str, words)).encode(), digest_size=8).hexdigest()


class FaultBook:
    """The faults of one queue. ``end`` ends this process; without it the queue only refuses what comes after."""

    def __init__(
        self, journal: Journal, clock: Clock, *, restarted: bool = False, end: Callable[[], None] | None = None
    ) -> None:
        self._journal, self._clock, self._end = journal, clock, end
        self._note = _read(journal, clock.now())
        faults = self._note.faults
        self._suspects = {call: fault.at for fault in faults for call in fault.inputs}  # when last
        self._guilty = {call for fault in faults if fault.alone for call in fault.inputs}
        self.failed = ""  #: why nothing more may be asked of the engine
        self.note_again_s = 1.0  #: between two tries to write the note
        self.restart = self._count_restart() if restarted or self._note.pending else None

    @property
    def restarts(self) -> tuple[int, float, str]:
        """How often the process was started again, when last, and why."""
        return self._note.restarts, self._note.restarted_at, self._note.reason

    def is_empty(self) -> bool:
        """Return True if no call needs a look: the usual case."""
        return not self._suspects

    def is_guilty(self, call: str) -> bool:
        """Return True if this call alone ended the process."""
        return call in self._guilty and self.is_suspect(call)

    def is_suspect(self, call: str) -> bool:
        """Return True if this call was one of those under way when the process ended."""
        at = self._suspects.get(call)
        return at is not None and abs(self._clock.now() - at) < _BLAMED_S

    def taken_ids(self) -> frozenset[str]:
        """Return the ids that the journal had already when it refused a commit."""
        return frozenset(fault.job for fault in self._recent() if fault.what == COMMIT and fault.job)

    def had(self, what: str) -> bool:
        """Return True if a fault of this kind is remembered."""
        return any(fault.what == what for fault in self._recent())

    def put_off_s(self, call: str, *, callers: int = 1, beyond: int = 0) -> float:
        """Return for how long a call is not carried out that ended the process alone; 0: it is.

        ``callers``: how many of those that make it must have met the fault. ``beyond``: how many faults are let pass
        before it is put off.
        """
        faults = [fault for fault in self._recent() if fault.alone and call in fault.inputs]
        if len(faults) <= beyond or len({fault.inputs[0] for fault in faults}) < callers:
            return 0.0
        until = max(fault.at for fault in faults) + min(_LONGEST_PAUSE_S, 2.0 ** (len(faults) - beyond))
        return max(0.0, until - self._clock.now())

    def pause_s(self) -> float:
        """Return the least time between ticks: long where they end the process again and again."""
        if not self._note.faults:
            return 0.0
        faults = sum(fault.what == "Tick" for fault in self._recent())
        return min(_LONGEST_PAUSE_S, 2.0**faults) if faults >= _TICK_FAULTS else 0.0

    def trip(
        self, what: str, error: BaseException, inputs: Sequence[str] = (), *, alone: bool = False, job: str = ""
    ) -> None:
        """Note the fault, say so, and end the process. ``job``: to be blamed if the engine had no job in hand."""
        if self.failed:
            return
        self.failed = f"{what} failed with {_describe(error)}"
        steps = "".join(traceback.format_tb(error.__traceback__))  # without the message, which may quote a job
        _log.critical("%s: the queue's process ends, and begins again from its journal\n%s", self.failed, steps)
        job = error.name if isinstance(error, JournalRefused) else job_in(error) or job
        fault = Fault(self._clock.now(), what, tuple(inputs), alone, job)
        self._note.faults = _with(self._note.faults, fault)
        self._note.pending = self.failed
        self._end_when_noted(_NOTE_TRIES)

    def _end_when_noted(self, tries: int) -> None:
        """End the process; the next one must know why. On a full disk that waits, but not for ever."""
        if not self._save() and tries > 1:
            asyncio.get_running_loop().call_later(self.note_again_s, self._end_when_noted, tries - 1)
        elif self._end is not None:
            self._end()

    def _recent(self) -> list[Fault]:
        now = self._clock.now()
        return [fault for fault in self._note.faults if abs(now - fault.at) < _BLAMED_S]

    def _count_restart(self) -> str:
        note = self._note
        note.restarts, note.restarted_at = note.restarts + 1, self._clock.now()
        note.reason, note.pending = note.pending or _SILENT, ""
        _log.warning("the queue was started again: %s", note.reason)
        self._save()
        return note.reason

    def _save(self) -> bool:
        try:
            self._journal.write_note(encode(self._note))
        except Exception as error:  # the journal says more: this must not keep the process from ending
            _log.critical("the fault could not be noted beside the journal: %s", error)
            return False
        return True


def _with(faults: tuple[Fault, ...], fault: Fault) -> tuple[Fault, ...]:
    """Return ``faults`` and one more; of those of one call only the last, so that they push no other out."""
    key = fault.what, fault.inputs, fault.job
    alike = [other for other in faults if (other.what, other.inputs, other.job) == key]
    gone = alike[0] if len(alike) >= _KEPT_ALIKE else None
    return (*(other for other in faults if other is not gone), fault)[-_KEPT:]


def jobs_to_set_aside(journal: Journal, now: float) -> frozenset[str]:
    """Return the jobs that were in hand at so many faults that the queue must go on without them."""
    faults = _read(journal, now).faults
    counted = Counter(fault.job for fault in faults if fault.job and fault.what not in ("Submit", COMMIT))
    return frozenset(job_id for job_id, count in counted.items() if count >= _SET_ASIDE)


def job_in(error: BaseException) -> str:
    """Return the id of the job that the engine had in hand when it raised; empty if that can't be seen."""
    found, step = "", error.__traceback__
    while step is not None:
        if isinstance(job := step.tb_frame.f_locals.get("job"), JobRecord):
            found = job.id
        step = step.tb_next
    return found


def _read(journal: Journal, now: float) -> Note:
    try:
        note = _decode(journal.read_note())
    except ValueError:  # none yet, or not one of ours
        return Note()
    note.faults = tuple(fault for fault in note.faults if abs(now - fault.at) < _BLAMED_S)
    return note


def _describe(error: BaseException) -> str:
    said = f" ({error})" if isinstance(error, JournalRefused) else ""
    return f"{type(error).__name__}{said}{_where(error.__traceback__)}"


def _where(steps: TracebackType | None) -> str:
    last = traceback.extract_tb(steps)[-1:] if steps else []
    return f" at {last[0].filename.rpartition('/')[2]}:{last[0].lineno}" if last else ""
