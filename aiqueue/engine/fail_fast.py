"""Jobs that would rather fail than wait at a closed gate, by gate.

When a gate closes, the jobs that waited for it are set aside as one, whatever their number, and ended some at a time.
Until the last of them has, the gate stays closed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from aiqueue.engine.gates import Gate, GateKey
from aiqueue.engine.records import JobRecord


class FailFast:
    """The live jobs of this kind."""

    def __init__(self) -> None:
        self._gate_of: dict[str, GateKey] = {}
        self._at: dict[GateKey, dict[str, None]] = {}
        self._closing: deque[tuple[Gate, str, deque[str]]] = deque()  # gate, reason, jobs to be looked at

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._gate_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._gate_of)

    def __len__(self) -> int:
        return len(self._gate_of)

    @property
    def pending(self) -> bool:
        """Whether jobs wait for their end at a gate that has closed."""
        return bool(self._closing)

    def add(self, job: JobRecord) -> None:
        """Take a live job."""
        lane = job.lane
        key = self._gate_of[job.id] = GateKey(lane.provider, lane.credential, lane.model)
        self._at.setdefault(key, {})[job.id] = None

    def discard(self, job_id: str) -> None:
        """Forget a job that has ended, or was never one of these."""
        key = self._gate_of.pop(job_id, None)
        if key is not None and (there := self._at.get(key)) is not None:
            there.pop(job_id, None)
            if not there:
                del self._at[key]

    def close(self, gate: Gate, reason: str) -> None:
        """A gate has closed: the jobs that wait for it are to end."""
        if found := self._at.pop(gate.key, None):
            gate.emptying += 1
            self._closing.append((gate, reason, deque(found)))

    def take(self, most: int) -> list[tuple[str, str]]:
        """Return up to ``most`` of the jobs to look at, each with the reason why its gate is closed.

        They count as waiting for their gate again: those that are not QUEUED now may be later.
        """
        taken: list[tuple[str, str]] = []
        while self._closing and len(taken) < most:
            gate, reason, found = self._closing[0]
            there = self._at.setdefault(gate.key, {})
            while found and len(taken) < most:
                job_id = found.popleft()
                if job_id in self._gate_of:
                    there[job_id] = None
                    taken.append((job_id, reason))
            if not there:
                del self._at[gate.key]
            if not found:
                self._closing.popleft()
                gate.emptying -= 1
        return taken
