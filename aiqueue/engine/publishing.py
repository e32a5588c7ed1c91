"""The events that users and workers see, numbered in the order in which they happen."""

from __future__ import annotations

from collections.abc import Mapping

from aiqueue.engine.counters import Counters
from aiqueue.engine.effects import Effects
from aiqueue.engine.gates import GateChange, Gates
from aiqueue.engine.policy import EnginePolicy
from aiqueue.engine.records import JobRecord
from aiqueue.engine.states import JobState
from aiqueue.protocol import Event, Failure, encode

EVENT_NAMES: Mapping[JobState, str] = {
    JobState.PROCESSING: "job:processing",
    JobState.SCHEDULED: "job:retried",
    JobState.COMPLETED: "job:completed",
    JobState.FAILED: "job:failed",
    JobState.DEAD_LETTER: "job:dead-letter",
    JobState.CANCELLED: "job:cancelled",
    JobState.EXPIRED: "job:expired",
}
SUBMITTED = "job:submitted"
RETRIED = EVENT_NAMES[JobState.SCHEDULED]
BATCH_SUBMITTED, BATCH_ENDED = "batch:submitted", "batch:ended"
GATE_CLOSED, GATE_OPENED = "gate:closed", "gate:opened"


class Turn(Effects):
    """One command being carried out: the time it happens at, and what has come of it so far."""

    def __init__(self, now: float, most: int = 500) -> None:
        super().__init__()
        self.now = now
        self.left = most  #: jobs that this turn may yet cancel, or tell of the end of one that they need
        self.counted = False  #: a counter changed, though no job did
        self.repeated: dict[str, bytes] = {}  #: dead letters that jobs of this command repeat: their new Progress


class Publisher:
    """Appends events to the turn in which they happen."""

    def __init__(self, policy: EnginePolicy, counters: Counters) -> None:
        self.policy = policy
        self.counters = counters
        self.gates = Gates(policy.gates)

    def publish(
        self, turn: Turn, job: JobRecord, name: str, *, failure: Failure | None = None, result: bytes = b""
    ) -> None:
        """Append an event about ``job`` as it is now."""
        lane = job.lane
        event = Event(
            self.counters.take_event(),
            name,
            turn.now,
            job.id,
            job.owner,
            job.state._value_,  # what ``value`` returns, without the call: this runs three times per job
            job.type,
            lane.provider,
            lane.model,
            job.level,
            job.attempt,
            job.created_at,
            job.started_at,
            self.policy.sla_ms[job.level],
            job.batch_id,
            job.worker_id,
            result,
            failure,
            job.retries,
            since=job.since,
        )
        turn.events.append(event)

    def publish_gate(self, turn: Turn, change: GateChange) -> None:
        """Append an event about a gate, and journal it."""
        key = change.key
        name = GATE_CLOSED if change.until else GATE_OPENED
        event = self._publish_jobless(turn, name, provider=key.provider, model=key.model)
        event.gate, event.until, event.reason = str(key), change.until, change.reason
        stored = self.gates.at(key, now=turn.now).stored()
        turn.rows.gates.append((key.to_json(), encode(stored)))

    def publish_announced(self, turn: Turn, name: str, data: bytes) -> int:
        """Append an event that somebody else announced; return its number, which the turn's commit makes durable."""
        event = self._publish_jobless(turn, name)
        event.data, turn.counted = data, True
        return event.number

    def _publish_jobless(self, turn: Turn, name: str, *, provider: str = "", model: str = "") -> Event:
        """Append an event about no job and return it, to be filled in."""
        number = self.counters.take_event()
        event = Event(number, name, turn.now, "", "", "", "", provider, model, 0, 0, 0.0, 0.0, 0)
        turn.events.append(event)
        return event

    def publish_batch(self, turn: Turn, name: str, batch_id: str, phase: str) -> None:
        """Append an event about a batch; ``reason`` is how it stands then."""
        event = self._publish_jobless(turn, name)
        event.batch_id, event.reason = batch_id, phase
