"""What a journal in memory holds, and how a commit changes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from aiqueue.engine.effects import SPENT, KeyRow, Rows
from aiqueue.engine.states import JobState
from aiqueue.journal.base import FORGOTTEN_AT_ONCE, JournalRefused, OldKey, PartRow
from aiqueue.journal.rows import without_deleted


class JobRow(NamedTuple):
    """The part of a job that is written once."""

    id: str
    header: bytes
    payload: bytes


@dataclass(slots=True)
class Disk:
    """What a crash leaves: rows in dicts."""

    jobs: dict[int, JobRow] = field(default_factory=dict)
    seqs: dict[str, int] = field(default_factory=dict)
    shared: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    states: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    ended_at: dict[int, float] = field(default_factory=dict)
    results: dict[int, bytes] = field(default_factory=dict)
    attempts: dict[tuple[int, int], bytes] = field(default_factory=dict)
    gates: dict[str, bytes] = field(default_factory=dict)
    keys: dict[str, KeyRow] = field(default_factory=dict)
    schedules: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    counters: bytes = b""
    note: bytes = b""
    batches: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    batch_states: dict[int, tuple[bytes, float]] = field(default_factory=dict)
    parts: dict[int, list[PartRow]] = field(default_factory=dict)
    ends: dict[int, dict[int, int]] = field(default_factory=dict)

    def write(self, rows: Rows) -> None:
        """Keep ``rows``, or raise JournalRefused before anything is written."""
        if rows.deletes or rows.dropped:
            rows = without_deleted(rows)
        self._check_same(rows)
        self._note_ends(self.ended_at.keys() & rows.deletes)
        for seq in rows.deletes:
            self._delete(seq)
        for seq, job_id, header, payload in rows.jobs:
            if seq not in self.jobs:
                self.jobs[seq] = JobRow(job_id, header, payload)
                self.seqs[job_id] = seq
        self.shared.update({first: (last, metadata) for first, last, metadata in rows.shared})
        if rows.deletes:
            self._forget_shared()
        self.states.update({seq: (state, progress) for seq, state, progress, _ in rows.states})
        self.ended_at.update({seq: ended_at for seq, _, _, ended_at in rows.states})
        self.results.update(rows.results)
        self.attempts.update({(seq, attempt): body for seq, attempt, body in rows.attempts})
        self.gates.update(rows.gates)
        for key, job_id in rows.free_keys:
            if key in self.keys and self.keys[key].job_id == job_id:
                del self.keys[key]
        self.keys.update({row.key: row for row in rows.keys})
        for schedule_id, spec, state in rows.schedules:
            known, _ = self.schedules.pop(schedule_id, (b"", b""))
            if state and (spec or known):
                self.schedules[schedule_id] = (spec or known, state)
        for at, name, job_id in rows.key_times:
            if name in self.keys and self.keys[name].job_id == job_id:
                self.keys[name] = self.keys[name]._replace(at=at)
        self._write_batches(rows)
        self.counters = rows.counters or self.counters

    def _check_same(self, rows: Rows) -> None:
        """Raise JournalRefused for a job or batch whose id or number another one has."""
        deleted, dropped = frozenset(rows.deletes), frozenset(rows.dropped)
        new: dict[str, int] = {}
        for seq, job_id, _, _ in rows.jobs:
            owner, taken = self.jobs.get(seq), self.seqs.get(job_id, seq)
            free = taken in deleted or taken == seq
            if new.setdefault(job_id, seq) != seq or not free or (owner is not None and owner.id != job_id):
                said = f"{job_id!r} can't become number {seq} of jobs: the id or number is taken"
                raise JournalRefused(said, job_id)
        numbers = (
            {batch_id: no for no, (batch_id, _) in self.batches.items() if no not in dropped} if rows.batches else {}
        )
        for no, batch_id, _ in rows.batches:
            if numbers.setdefault(batch_id, no) != no or self.batches.get(no, (batch_id,))[0] != batch_id:
                said = f"{batch_id!r} can't become number {no} of batches: the id or number is taken"
                raise JournalRefused(said, batch_id)

    def old_key(self, row: KeyRow) -> OldKey:
        """Return what became of the jobs of a key."""
        ends = [self.ended_at.get(seq, 0.0) for seq in seqs_of(row) if seq in self.jobs]
        if row.batch in self.batch_states:
            ends.append(self.batch_states[row.batch][1])
        return OldKey(row.key, row.job_id, any(end <= 0 for end in ends), max([row.at, *ends]))

    def _note_ends(self, gone: set[int]) -> None:
        for key, row in self.keys.items() if gone else ():
            seqs = gone.intersection(seqs_of(row))
            is_spent = row.batch is None and any(self.states[seq][0] != JobState.DEAD_LETTER for seq in seqs)
            at = max([row.at, *(self.ended_at[seq] for seq in seqs)])
            self.keys[key] = row._replace(at=at, batch=SPENT if is_spent else row.batch)

    def _delete(self, seq: int) -> None:
        row = self.jobs.pop(seq, None)
        if row is not None:
            del self.seqs[row.id]
        self.states.pop(seq, None)
        self.ended_at.pop(seq, None)
        self.results.pop(seq, None)
        for key in [key for key in self.attempts if key[0] == seq]:
            del self.attempts[key]

    def _forget_shared(self) -> None:
        for first, (last, _) in list(self.shared.items()):
            if not any(first <= seq <= last for seq in self.jobs):
                del self.shared[first]

    def _write_batches(self, rows: Rows) -> None:
        for no in rows.dropped:
            self._forget_batch(no)
            self.keys = {key: row for key, row in self.keys.items() if row.batch != no}
        for no, batch_id, spec in rows.batches:
            self.batches.setdefault(no, (batch_id, spec))
        self.batch_states.update({no: (body, ended_at) for no, body, ended_at in rows.batch_states})
        for no, *part in rows.parts:
            known = self.parts.setdefault(no, [])
            if PartRow(*part) not in known:
                known.append(PartRow(*part))
        for no, n, seq in rows.ends:
            self.ends.setdefault(no, {})[n] = seq
        left = FORGOTTEN_AT_ONCE
        for no in [no for no, (_, ended_at) in self.batch_states.items() if 0 < ended_at < rows.batches_before]:
            parts, ends = self.parts.get(no, []), self.ends.get(no, {})
            gone, over = parts[:left], list(ends)[: max(0, left - len(parts))]
            del parts[: len(gone)]
            for n in over:
                del ends[n]
            left -= len(gone) + len(over)
            if left <= 0:
                return
            self._forget_batch(no)
            left -= 1

    def _forget_batch(self, no: int) -> None:
        for table in (self.batches, self.batch_states, self.parts, self.ends):
            table.pop(no, None)


def seqs_of(row: KeyRow) -> range:
    """Return the seqs of the jobs that were submitted with a key."""
    return range(0) if row.first_seq is None or row.last_seq is None else range(row.first_seq, row.last_seq + 1)
