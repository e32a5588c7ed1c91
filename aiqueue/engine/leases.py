"""Who holds which job, and since when nothing was heard.

A lease belongs to a worker, not to a job's duration: it lasts as long as its worker speaks, however long the model
takes. The attempt number is the fencing token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aiqueue.engine.affinity import Affinity
from aiqueue.engine.records import JobRecord

_MAX_LOST = 1_000  # most never come back


class Worker:
    """One living worker process, as the queue hears it."""

    __slots__ = ("affinity", "calls", "cancels", "held", "id", "most", "pool", "silent_after", "slots", "urgent_slots")

    def __init__(self, worker_id: str, pool: str) -> None:
        self.id = worker_id
        self.pool = pool
        self.affinity: Affinity | None = None  #: None: it serves all models of its pool at once
        self.slots = 0
        self.urgent_slots = 0  #: of these, only for jobs of the first level
        self.most = 0  #: jobs it takes from one answer; 0: any number
        self.calls = 0  #: number of its latest call that has arrived
        self.silent_after = 0.0  #: its leases are lost at this time
        self.held: dict[str, JobRecord] = {}
        self.cancels: list[tuple[str, int]] = []  #: attempts it has yet to be told to stop

    @property
    def free(self) -> int:
        """How many more jobs it may be given."""
        return max(0, self.slots - len(self.held))

    @property
    def free_for_all(self) -> int:
        """How many more jobs it may be given whatever their level."""
        if not self.urgent_slots:
            return self.free
        others = sum(job.level > 0 for job in self.held.values())
        return max(0, min(self.free, self.slots - self.urgent_slots - others))

    def has_overtaken(self, number: int) -> bool:
        """Return True if a call of this number comes after a later one, or a second time."""
        return 0 < number <= self.calls

    def is_overtaken(self, number: int) -> bool:
        """Return True if a later call than this one, which has arrived, has arrived too."""
        return 0 < number < self.calls


class Leases:
    """All workers and what they hold."""

    def __init__(self, lease_s: float, most_passes: Mapping[str, int]) -> None:
        self._lease_s = lease_s
        self._most_passes = most_passes  # by pool
        self._workers: dict[str, Worker] = {}
        self._lost: dict[str, list[tuple[str, int]]] = {}  #: what workers held when they were given up, by worker

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def heard(self, worker_id: str, pool: str, *, now: float) -> Worker:
        """Return the worker, whose leases all last from ``now`` on; a new one is made known."""
        worker = self._workers.get(worker_id)
        if worker is None:
            worker = self._workers[worker_id] = Worker(worker_id, pool)
            if (most_passes := self._most_passes.get(pool)) is not None:
                worker.affinity = Affinity(most_passes)
            worker.cancels = self._lost.pop(worker_id, [])
        self.prolong(worker, now=now)
        return worker

    def prolong(self, worker: Worker, *, now: float) -> None:
        """Let the worker's leases begin anew at ``now``."""
        worker.silent_after = now + self._lease_s

    def find(self, worker_id: str) -> Worker | None:
        """Return the worker, if it is known."""
        return self._workers.get(worker_id)

    def models_beside(self, worker: Worker) -> frozenset[str]:
        """Return the models that other workers of its pool are on, those that drain left out."""
        beside = (other for other in self._workers.values() if other is not worker and other.pool == worker.pool)
        return frozenset(other.affinity.model for other in beside if other.affinity and other.slots)

    def grant(self, worker: Worker, job: JobRecord) -> None:
        """Record that ``worker`` holds ``job``."""
        worker.held[job.id] = job

    def release(self, job: JobRecord) -> None:
        """Record that nobody holds ``job`` any more."""
        worker = self._workers.get(job.worker_id)
        if worker is not None:
            worker.held.pop(job.id, None)

    def forget(self, worker_id: str) -> list[JobRecord]:
        """Remove a worker and return the jobs it held. Should it come back, it is told to stop them."""
        worker = self._workers.pop(worker_id, None)
        if worker is None or not worker.held:
            return []
        self._lost[worker_id] = [(job.id, job.attempt) for job in worker.held.values()]
        if len(self._lost) > _MAX_LOST:
            del self._lost[next(iter(self._lost))]
        return list(worker.held.values())

    def extend(self, seconds: float, *, now: float) -> None:
        """Extend leases by the ``seconds`` in which no worker could be heard, except those of workers heard since."""
        if seconds:
            for worker in self._workers.values():
                worker.silent_after = min(worker.silent_after + seconds, now + self._lease_s)

    def silent(self, now: float) -> list[str]:
        """Return the workers whose time is over."""
        return [worker.id for worker in self._workers.values() if worker.silent_after <= now]
