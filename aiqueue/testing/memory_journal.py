"""A journal in memory that keeps its promises, breaks when told to, and survives a "crash".

It passes the contract tests of the real one. What it adds: commits that fail, commits whose end is in doubt, commits
that wait until the test lets them go, and ``crash``, which leaves what was committed to the next one.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager

from aiqueue.engine.effects import KeyRow, Rows
from aiqueue.engine.engine import BatchRow
from aiqueue.engine.states import TERMINAL, JobState
from aiqueue.ids import is_made_in_order
from aiqueue.journal.base import NO_LIMIT, EndedRow, OldKey, PartRow, Recovered, StoredJob, StoredKey
from aiqueue.testing.memory_disk import Disk, seqs_of


class MemoryJournal:
    """Rows in dicts. Usable from the writer thread and the loop at once, as the real one is."""

    def __init__(self) -> None:
        self._disk = Disk()
        self._lock = threading.Lock()
        self._failures: list[tuple[Exception, bool]] = []
        self._failing: Exception | None = None
        self._open_gate = threading.Event()
        self._open_gate.set()
        self.held = threading.Event()  #: a commit waits for ``release``
        self._gone = ""
        self.commits = 0  #: that succeeded
        self.failed_commits = 0
        self.reopened = 0
        self.on_commit: Callable[[Rows], None] | None = None  #: called with the rows of each commit that succeeded

    # --- what a test does to it ---

    def fail_next(self, count: int = 1, error: Exception | None = None, *, after_writing: bool = False) -> None:
        """Let the next ``count`` commits fail. ``after_writing``: they are on disk all the same (a lost answer)."""
        self._failures += [(error or disk_full(), after_writing)] * count

    def break_down(self, error: Exception | None = None) -> None:
        """Let every commit fail until ``mend``."""
        self._failing = error or disk_full()

    def mend(self) -> None:
        """Let commits succeed again."""
        self._failing = None

    def hold(self) -> None:
        """Let commits wait, as on a disk that does not answer, until ``release``."""
        self.held.clear()
        self._open_gate.clear()

    def release(self) -> None:
        """Let the commits that wait go on."""
        self._open_gate.set()

    def crash(self) -> MemoryJournal:
        """Return a journal of what was committed; this one takes no more, like a process that is dead."""
        survivor = MemoryJournal()
        with self._lock:
            survivor._disk = self._disk
            self._gone = "the process of this journal is dead"
            self._disk = Disk()
        self.release()
        return survivor

    # --- the protocol ---

    def commit(self, rows: Rows) -> None:
        """Keep ``rows``, all or none of them. Raises what the test asked for, OSError by itself only when closed."""
        if not self._open_gate.is_set():
            self.held.set()
            self._open_gate.wait()
        rows.spread()
        with self._lock:
            self._check()
            failure, written = self._failures.pop(0) if self._failures else (self._failing, False)
            if failure is None or written:
                self._disk.write(rows)
            if failure is not None:
                self.failed_commits += 1
                raise failure
            self.commits += 1
        if self.on_commit is not None:
            self.on_commit(rows)

    def fold_log(self) -> None:
        """Do nothing: there is no log."""

    def has_room(self) -> bool:
        """Tell that there is: memory is large."""
        return True

    def reopen(self) -> None:
        """Count that the writer asked for it."""
        self._check()
        self.reopened += 1

    @contextmanager
    def recover(self) -> Iterator[Recovered]:
        """Open a copy of the jobs that have not ended."""
        with self._lock:
            self._check()
            disk = self._disk
            rows = [
                (seq, row.id, row.header, *disk.states.get(seq, (JobState.QUEUED.value, b"")))
                for seq, row in sorted(disk.jobs.items())
                if disk.states.get(seq, ("",))[0] not in TERMINAL
            ]
            counters = disk.counters
            gates = list(disk.gates.items())
            schedules = [(schedule_id, *row) for schedule_id, row in sorted(disk.schedules.items())]
            batches = [self._batch(no) for no in disk.batches if not disk.batch_states[no][1]]
            parts = [(no, *part[:2]) for no, *_ in batches for part in disk.parts.get(no, [])]
            parts.sort(key=lambda part: part[1])
            last = max(disk.jobs, default=0), max(disk.batches, default=0)
        yield Recovered(counters, iter(rows), gates, schedules, batches, *last, parts)

    def payloads(self, seqs: Sequence[int], *, limit: int = NO_LIMIT) -> dict[int, bytes]:
        """Return payloads by seq. Reads no more of them once they have more than ``limit`` bytes."""
        with self._lock:
            self._check()
            found: dict[int, bytes] = {}
            for seq in sorted(set(seqs) & self._disk.jobs.keys()):
                found[seq] = self._disk.jobs[seq].payload
                limit -= len(found[seq])
                if limit < 0:
                    break
            return found

    def jobs(
        self, ids: Iterable[str], *, with_payload: bool = False, with_result: bool = True, limit: int = NO_LIMIT
    ) -> dict[str, StoredJob]:
        """Return the jobs that are known, by id; payload and result are empty where they are not asked for."""
        with self._lock:
            self._check()
            disk, found = self._disk, dict[str, StoredJob]()
            for job_id in ids:
                if job_id in disk.seqs:
                    found[job_id] = self._stored(disk.seqs[job_id], with_payload, with_result)
                    limit -= found[job_id].weight
                if limit < 0:
                    break
            return found

    def states(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the states of the jobs that are known, by id."""
        return {job_id: job.state or JobState.QUEUED.value for job_id, job in self.jobs(ids).items()}

    def attempts(self, seqs: Sequence[int]) -> dict[int, list[bytes]]:
        """Return the AttemptRecords of jobs by seq, the first attempt first."""
        found: dict[int, list[bytes]] = {}
        with self._lock:
            for (seq, _), body in sorted(self._disk.attempts.items()):
                if seq in seqs:
                    found.setdefault(seq, []).append(body)
        return found

    def keys(self, keys: Sequence[str]) -> dict[str, StoredKey]:
        """Return the idempotency keys that are known."""
        with self._lock:
            found = [self._disk.keys[key] for key in keys if key in self._disk.keys]
            return {row.key: StoredKey(row.job_id, row.digest, row.at, len(seqs_of(row)), row.batch) for row in found}

    def keys_of_only(self, seqs: Sequence[int]) -> list[tuple[str, str]]:
        """Return key and first job id of each key of a list whose kept jobs are all among ``seqs``."""
        with self._lock:
            rows = [(row, self._disk.jobs.keys() & seqs_of(row)) for row in self._disk.keys.values()]
            return [(row.key, row.job_id) for row, kept in rows if _is_of_only(row, kept, seqs)]

    def ended(self, *, after: tuple[float, int], before: float, limit: int) -> list[EndedRow]:
        """Return jobs that ended before a time, in the order of their ends; of those after (time, seq) of one."""
        with self._lock:
            ends = sorted((at, seq) for seq, at in self._disk.ended_at.items() if 0 < at < before and (at, seq) > after)
            return [EndedRow(at, seq, self._disk.jobs[seq].id) for at, seq in ends if seq in self._disk.jobs][:limit]

    def weights(self, ids: Sequence[str], *, with_payload: bool, with_result: bool = True) -> dict[str, int]:
        """Return how many bytes ``jobs`` would read of each job that is known."""
        with self._lock:
            seqs = {self._disk.seqs[job_id]: job_id for job_id in ids if job_id in self._disk.seqs}
        sizes = MemoryJournal.row_sizes(self, list(seqs), with_payload=with_payload, with_result=with_result)
        return {seqs[seq]: size for seq, size in sizes.items()}

    def row_sizes(self, seqs: Sequence[int], *, with_payload: bool, with_result: bool) -> dict[int, int]:
        """Return how many bytes ``by_seq`` would read of each job that is known."""
        with self._lock:
            self._check()
            found = [self._stored(seq, with_payload, with_result) for seq in seqs if seq in self._disk.jobs]
        return {job.seq: sum(len(column) for column in job if isinstance(column, bytes)) for job in found}

    def attempt_sizes(self, seqs: Sequence[int]) -> dict[int, int]:
        """Return how many bytes ``attempts`` would read of each job that has any."""
        return {seq: sum(map(len, bodies)) for seq, bodies in MemoryJournal.attempts(self, seqs).items()}

    def sizes(self, seqs: Sequence[int]) -> dict[int, int]:
        """Return how many bytes the payloads and results of jobs have, by seq."""
        with self._lock:
            jobs, results = self._disk.jobs, self._disk.results
            return {seq: len(jobs[seq].payload) + len(results.get(seq, b"")) for seq in seqs if seq in jobs}

    def newest_id(self) -> str:
        """Return the highest job id of those that compare as they were made; empty if there is none."""
        with self._lock:
            return max(filter(is_made_in_order, self._disk.seqs), default="")

    def count_jobs(self) -> int:
        """Return how many jobs are kept, whatever their state."""
        return len(self._disk.jobs)

    def old_keys(self, *, before: float, limit: int, stuck: Collection[str] = ()) -> list[OldKey]:
        """Return idempotency keys whose time is before another, the oldest first."""
        with self._lock:
            disk = self._disk
            old = [row for row in disk.keys.values() if row.at < before and row.key not in stuck]
            return [disk.old_key(row) for row in sorted(old, key=lambda row: (row.at, row.key))[:limit]]

    def has_older(self, *, batches_before: float) -> bool:
        """Tell whether there are ended batches for a commit with this time to forget."""
        with self._lock:
            return any(0 < ended_at < batches_before for _, ended_at in self._disk.batch_states.values())

    def dead_letter_seqs(self, *, before_seq: int, limit: int) -> list[int]:
        """Return the seqs of dead letters, the newest first."""
        with self._lock:
            dead = [seq for seq, row in self._disk.states.items() if row[0] == JobState.DEAD_LETTER]
            return [seq for seq in sorted(dead, reverse=True) if seq < before_seq][:limit]

    def count_dead_letters(self) -> int:
        """Return how many dead letters there are."""
        with self._lock:
            return sum(state == JobState.DEAD_LETTER for state, _ in self._disk.states.values())

    def batch(self, batch_id: str) -> BatchRow | None:
        """Return a batch, whether it has ended or not."""
        with self._lock:
            return next((self._batch(no) for no, (known, _) in self._disk.batches.items() if known == batch_id), None)

    def parts(self, number: int) -> list[PartRow]:
        """Return where the jobs of a batch are, in the order they were accepted."""
        with self._lock:
            return sorted(self._disk.parts.get(number, []))

    def batch_ends(self, number: int, *, after: int, limit: int) -> list[int]:
        """Return the seqs of a batch's jobs that have ended, in the order of their ends."""
        with self._lock:
            return [seq for n, seq in sorted(self._disk.ends.get(number, {}).items()) if n > after][:limit]

    def by_seq(self, seqs: Sequence[int], *, with_payload: bool = False, with_result: bool = True) -> list[StoredJob]:
        """Return the jobs that are known, in the order of ``seqs``."""
        with self._lock:
            return [self._stored(seq, with_payload, with_result) for seq in seqs if seq in self._disk.jobs]

    def outlines(self, seqs: Sequence[int]) -> list[StoredJob]:
        """Return the jobs that are known with id and state alone, in the order of ``seqs``."""
        with self._lock:
            self._check()
            disk = self._disk
            there = [seq for seq in seqs if seq in disk.jobs]
            return [StoredJob(n, disk.jobs[n].id, b"", disk.states.get(n, ("",))[0], b"", b"", b"") for n in there]

    def read_note(self) -> bytes:
        """Return what ``write_note`` kept."""
        return self._disk.note

    def write_note(self, body: bytes) -> None:
        """Keep a small note. Raises OSError."""
        self._check()
        self._disk.note = body

    def headers(self, *, from_seq: int, count: int) -> list[tuple[int, bytes]]:
        """Return seq and header of the jobs that are known among ``count`` seqs."""
        with self._lock:
            there = [seq for seq in range(from_seq, from_seq + count) if seq in self._disk.jobs]
            return [(seq, self._disk.jobs[seq].header) for seq in there]

    def _batch(self, no: int) -> BatchRow:
        return no, self._disk.batches[no][1], self._disk.batch_states[no][0]

    def close(self) -> None:
        """Take no more."""
        self._gone = self._gone or "this journal is closed"
        self.release()

    def _stored(self, seq: int, with_payload: bool, with_result: bool) -> StoredJob:
        row = self._disk.jobs[seq]
        state, progress = self._disk.states.get(seq, ("", b""))
        result = self._disk.results.get(seq, b"") if with_result else b""
        first = max((first for first in self._disk.shared if first <= seq), default=-1)
        last, shared = self._disk.shared.get(first, (-1, b""))
        metadata, payload = shared if seq <= last else b"", row.payload if with_payload else b""
        return StoredJob(seq, row.id, row.header, state, progress, result, payload, metadata)

    def _check(self) -> None:
        if self._gone:
            raise OSError(errno.EBADF, self._gone)


def disk_full() -> OSError:
    """Return the error of a disk without room."""
    return OSError(errno.ENOSPC, "No space left on device")


def _is_of_only(row: KeyRow, kept: Set[int], seqs: Sequence[int]) -> bool:
    return row.batch is None and len(seqs_of(row)) > 1 and bool(kept) and kept <= set(seqs)
