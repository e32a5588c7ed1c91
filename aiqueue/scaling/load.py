"""What the decisions are made from: the queue's view of a pool, and a worker's of itself. Both travel as msgpack."""

from __future__ import annotations

import msgspec

from aiqueue.protocol import Wire


class PoolLoad(Wire):
    """One pool, as the queue sees it. Lists are by level rank, 0 = urgent."""

    queued: list[int]  #: jobs that could start now if there were slots; what waits at a closed gate is not among them
    waited_s: list[float]  #: how long the oldest of them has waited; 0.0 where none does
    running: int = 0
    completed: int = 0  #: since the queue's process started
    busy_s: float = 0.0  #: for how long those held their slots, together
    #: Jobs in hand by worker id, of all workers that the queue hears from.
    held: dict[str, int] = msgspec.field(default_factory=dict)

    @property
    def depth(self) -> int:
        """How many jobs wait for a slot."""
        return sum(self.queued)


class WorkerReport(Wire):
    """A worker's answer to a health check."""

    worker_id: str  #: another one after a restart of the process
    pid: int
    node: str  #: Ray's node id
    draining: bool = False
    running: int = 0
    private_mb: float = 0.0  #: memory that this process alone owns; a mapped model file is not in it
    lag_s: float = 0.0  #: the longest time since the last report that the event loop did not turn
    overrun_s: float = 0.0  #: by how much a job has outlived its time limit
    overrun_job: str = ""
    starting_s: float = 0.0  #: for how long it has been getting ready, and takes no job before; 0.0: it is
    trouble: str = ""  #: why it can't work now although it tries; empty: nothing is wrong
    refused: bool = False  #: the trouble is that the queue's release of aiqueue and its own don't understand each other
    settings: str = ""  #: the mark of those it runs with; empty: its release does not say


decode_loads = msgspec.msgpack.Decoder(dict[str, PoolLoad]).decode
decode_report = msgspec.msgpack.Decoder(WorkerReport).decode
