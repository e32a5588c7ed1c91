"""A disk that fails, is slow and leaves doubts, and a record of all that was ever written to it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from aiqueue.engine.batch_records import decode_stored_batch
from aiqueue.engine.effects import Rows
from aiqueue.engine.records import decode_progress
from aiqueue.engine.states import TERMINAL, JobState
from aiqueue.engine.successors import successor_of
from aiqueue.ids import next_try_of
from aiqueue.journal.base import NO_LIMIT, Journal, JournalRefused, JournalTaken, StoredJob, StoredKey
from aiqueue.protocol import JobHeader, decode_header
from aiqueue.testing.memory_disk import Disk
from aiqueue.testing.memory_journal import MemoryJournal, disk_full
from aiqueue.testing.simulation.world import World

_AGAIN_S = 0.5
_PASS_S = 61.0  # from one pass of retention to the next, at most
_NOTICED_S = 2.0  # the watchdog's, to end a queue that can't go on


class History:
    """What became of each row, over all crashes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.seqs: dict[str, int] = {}  #: by job id: of its first acceptance
        self.ids: dict[int, str] = {}  #: by seq
        self.on_claim: Callable[[str], None] = lambda job_id: None
        self.most_ended = 0  #: ended jobs that the queue keeps, where that is a few; else 0
        self.is_too_old: Callable[[float], bool] = lambda ended_at: False  #: for the queue, by its clock
        self.on_delete: Callable[[str], None] = lambda job_id: None
        self.headers: dict[str, JobHeader] = {}
        self.ends: dict[int, tuple[str, bytes]] = {}
        self.ended_at: dict[int, float] = {}
        self.deleted: set[int] = set()
        self.aged: set[str] = set()  #: ids of jobs that were too old when they were deleted
        self._gone_at: dict[str, float] = {}  # by job id: what was kept for it goes in the pass after
        self.successors: dict[str, str] = {}  #: by job id: the job that repeats it
        self.on_repeat: Callable[[str], None] = lambda job_id: None

    def see(self, rows: Rows) -> None:
        """Check rows that were written."""
        repeated: list[tuple[str, str]] = []  # by these jobs, which are new
        for seq, job_id, header, _ in rows.jobs:
            known = self.seqs.setdefault(job_id, seq)
            if known in rows.deletes:  # what a commit deletes is deleted first
                self.seqs[job_id] = seq
            elif known != seq and known not in self.deleted:
                self._world.violated("id accepted twice", job_id[-12:], "seqs", known, seq)
            self.ids[seq] = job_id
            is_new = job_id not in self.headers
            self.headers[job_id] = decoded = decode_header(header)
            if decoded.redriven_from and is_new:
                repeated.append((decoded.redriven_from, job_id))
        last = {seq: (state, progress) for seq, state, progress, _ in rows.states}  # a commit may be made again
        for seq, (state, progress) in last.items():
            known_end = self.ends.get(seq)
            if known_end and (state == known_end[0] or (known_end[0] == "dead_letter" and state == "failed")):
                self._check_same_end(seq, known_end[1], progress)
                self.ends[seq] = (state, progress)  # redriven, tried again, or deleted and still needed
            elif known_end is not None and known_end != (state, progress):
                self._world.violated("ended twice", "seq", seq, known_end[0], "then", state)
            if state == JobState.PROCESSING:
                self.on_claim(self.ids[seq])
            if state in TERMINAL and known_end is None:
                self.ends[seq] = (state, progress)
                self.ended_at[seq] = self._world.loop.now
                self._world.note("ended", seq, state)
        for dead, successor in repeated:
            self._repeat(dead, successor)
        for seq in rows.deletes:
            self._delete(seq)
        drops = rows.dropped or any(decode_stored_batch(stored).dropped for _, stored, _ in rows.batch_states)
        if rows.deletes and self.most_ended and not drops:
            self._check_order(rows.deletes)

    def _check_same_end(self, seq: int, known: bytes, progress: bytes) -> None:
        state = self.ends[seq][0]
        if replace(decode_progress(progress), successor="") != replace(decode_progress(known), successor=""):
            self._world.violated("ended twice", "seq", seq, "as", state)

    def _repeat(self, dead: str, successor: str) -> None:
        """See that no other job repeats the dead letter now."""
        other = self.successors.get(dead)
        if other is not None and other in self.seqs and not self.end_of(other):
            self._world.violated("repeated twice at once", dead[-12:], "as", other[-12:], successor[-12:])
        self.successors[dead] = successor
        self.on_repeat(dead)

    def _check_order(self, deletes: Sequence[int]) -> None:
        """What is forgotten for the number of jobs ended before what is kept."""
        ended_at = self.ended_at
        gone = [seq for seq in deletes if seq in ended_at and self.ends[seq][0] != JobState.DEAD_LETTER]
        if not gone:
            return
        last = max(gone, key=lambda seq: ended_at[seq])
        since = self._world.loop.now - _PASS_S  # what went since then was there when the pass began
        later = sum(
            ended >= ended_at[last] - 1.0
            and (seq not in self.deleted or self._gone_at.get(self.ids[seq], 0.0) >= since)
            for seq, ended in ended_at.items()
        )
        if later <= self.most_ended and not self.is_too_old(ended_at[last]):  # it is one of them itself
            self._world.violated("forgotten though it is one of the last", last, "of", later)
        live = [header for job_id, header in self.headers.items() if self.seqs.get(job_id, 0) not in ended_at]
        needed = {need.job_id for header in live for need in header.needs}
        kept = [seq for seq in ended_at if seq not in self.deleted and self.ids[seq] not in needed]
        kept = [seq for seq in kept if not self._is_followed(seq)]
        first = min(kept, key=lambda seq: ended_at[seq], default=last)
        if ended_at[first] < ended_at[last] - 1.0:
            self._world.violated("forgotten before what ended earlier", last, "before", first)

    def _is_followed(self, seq: int) -> bool:
        """Return True for a failed job that is kept because what was put in its place is."""
        state, progress = self.ends[seq]
        heirs = {successor_of(progress), next_try_of(self.ids[seq])}
        since = self._world.loop.now - _PASS_S
        return state != JobState.COMPLETED and any(
            heir in self.seqs or self._gone_at.get(heir, -1.0) >= since for heir in heirs
        )

    def _delete(self, seq: int) -> None:
        self.deleted.add(seq)
        self._gone_at[self.ids.get(seq, "")] = self._world.loop.now
        job_id = self.ids.get(seq, "")
        if seq in self.ended_at and self.is_too_old(self.ended_at[seq]):
            self.aged.add(job_id)
        if self.seqs.get(job_id) == seq:
            del self.seqs[job_id]
        self.on_delete(job_id)

    def end_of(self, job_id: str) -> str:
        """Return how a job ended, or empty."""
        end = self.ends.get(self.seqs.get(job_id, 0))
        return end[0] if end else ""


class RecordedDisk(Disk):
    """Tells the history what is written."""

    def __init__(self, history: History) -> None:
        super().__init__()
        self._history = history

    def write(self, rows: Rows) -> None:
        """As the disk's."""
        super().write(rows)
        self._history.see(rows)


class SimulatedDisk(MemoryJournal):
    """A journal whose reads may fail."""

    def __init__(self, world: World, history: History) -> None:
        super().__init__()
        self._world, self.history = world, history
        self._disk = RecordedDisk(history)

    def crash(self) -> SimulatedDisk:
        """Return what the next process finds."""
        survivor = SimulatedDisk(self._world, self.history)
        survivor._disk = super().crash()._disk
        return survivor

    def _may_fail(self) -> None:
        if self._world.strikes("failed read", 0.03):
            self._world.note("read fails")
            raise OSError(errno.EIO, "Input/output error")

    def payloads(self, seqs: Sequence[int], *, limit: int = NO_LIMIT) -> dict[int, bytes]:
        """As the journal's, or an error."""
        self._may_fail()
        return super().payloads(seqs, limit=limit)

    def jobs(
        self, ids: Iterable[str], *, with_payload: bool = False, with_result: bool = True, limit: int = NO_LIMIT
    ) -> dict[str, StoredJob]:
        """As the journal's, or an error."""
        self._may_fail()
        return super().jobs(ids, with_payload=with_payload, with_result=with_result, limit=limit)

    def keys(self, keys: Sequence[str]) -> dict[str, StoredKey]:
        """As the journal's, or an error."""
        self._may_fail()
        return super().keys(keys)

    def by_seq(self, seqs: Sequence[int], *, with_payload: bool = False, with_result: bool = True) -> list[StoredJob]:
        """As the journal's, or an error."""
        self._may_fail()
        return super().by_seq(seqs, with_payload=with_payload, with_result=with_result)

    def batch(self, batch_id: str) -> Any:
        """As the journal's, or an error."""
        self._may_fail()
        return super().batch(batch_id)


class SimulatedWriter:
    """Commits as ``GroupCommitWriter`` does, on timers instead of a thread."""

    def __init__(
        self,
        journal: Journal,
        *,
        on_commit: Callable[[int], None],
        on_failure: Callable[[Exception | None], None],
        world: World,
    ) -> None:
        assert isinstance(journal, SimulatedDisk)
        self._journal, self._on_commit, self._on_failure, self._world = journal, on_commit, on_failure, world
        self._pending = Rows()
        self._batches = 0
        self._busy = self._failed = self._closed = False

    def append(self, rows: Rows) -> None:
        """Queue ``rows`` for the next commit."""
        self._pending.extend(rows)
        self._batches += 1
        if not self._busy:
            self._start()

    def close(self) -> None:
        """Commit what is pending, in one try."""
        self._closed = True
        if self._batches and not self._busy:
            self._journal.commit(self._pending)
            self._on_commit(self._batches)

    def _start(self) -> None:
        self._busy = True
        slow = self._world.strikes("slow commit", 0.1)
        delay = self._world.draws.choice((0.2, 0.5, 3.0)) if slow else 0.001
        self._world.loop.call_later(delay, self._take)

    def _take(self) -> None:
        rows, batches = self._pending, self._batches
        self._pending, self._batches = Rows(), 0
        self._commit(rows, batches)

    def _commit(self, rows: Rows, batches: int) -> None:
        world = self._world
        if world.strikes("queue crash", 0.01):
            world.later(0.0, world.crash_queue)  # after what is written here, before anybody hears of it
            if world.draws.random() < 0.5:
                return
        if world.strikes("failed commit", 0.06):
            self._journal.fail_next(1, disk_full(), after_writing=world.draws.random() < 0.5)
        try:
            if self._failed:
                self._journal.reopen()
            self._journal.commit(rows)
        except (JournalTaken, JournalRefused) as error:
            self._on_failure(error)
            self._give_up(error)
            return
        except Exception as error:
            world.note("commit fails", error)
            self._failed = True
            self._on_failure(error)
            world.loop.call_later(_AGAIN_S, self._commit, rows, batches)
            return
        if self._failed:
            self._failed = False
            self._on_failure(None)
        world.loop.call_later(0.0, self._committed, batches)

    def _give_up(self, error: Exception) -> None:
        """What memory holds can't be written: whoever watches ends the process. A call that came twice may do that."""
        world = self._world
        world.note("commit refused", error)
        if not {"late call", "call twice"} & world.happened.keys():
            world.violated("commit refused", error)
        world.later(_NOTICED_S, world.crash_queue)

    def _committed(self, batches: int) -> None:
        self._on_commit(batches)
        self._busy = False
        if self._batches:
            self._start()
