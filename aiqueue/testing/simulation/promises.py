"""What clients were told, and may rely on."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiqueue.protocol import ClaimedJob
from aiqueue.testing.simulation.disk import History
from aiqueue.testing.simulation.world import World

_SLACK_S = 8.0  # a stall, and the second after which the clock's jump is noticed


@dataclass(slots=True)
class Promises:
    """Kept over all crashes of the queue and of clients."""

    world: World
    history: History
    acked: dict[str, str] = field(default_factory=dict)  #: job ids that were accepted, and by which call
    strict: set[str] = field(default_factory=set)  #: jobs that only run on completed inputs
    batches: list[str] = field(default_factory=list)
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)  #: by key: body and the job it became
    #: Batches whose cancel was answered, until they are retried.
    stopped: dict[str, float] = field(default_factory=dict)
    #: Dead letters, and when a client was told of their deletion.
    thrown_away: dict[str, float] = field(default_factory=dict)
    retried_at: dict[str, float] = field(default_factory=dict)  #: by batch: when a retry last arrived
    forgets: bool = False  #: the queue deletes ended jobs soon
    runs: dict[str, int] = field(default_factory=dict)  #: by run id: how often a client began to map rows under it
    done_rows: dict[str, str] = field(default_factory=dict)  #: by run id and row: the job that completed

    def accepted(self, how: str, *job_ids: str) -> None:
        """Note jobs that a client was told are on disk."""
        for job_id in job_ids:
            self.acked[job_id] = how
            if job_id not in self.history.headers:
                self.world.violated("acknowledged, not on disk", how, job_id[-12:])
        self.world.note("acked", how, *(job_id[-12:] for job_id in job_ids))

    def accepted_with_key(self, key: str, body: str, job_id: str, asked_at: float) -> None:
        """Note a job that was accepted under a key: a client asked for it at ``asked_at``."""
        known_body, known = self.keys.get(key, (body, job_id))
        if known != job_id and known_body == body and known in self.history.seqs and not self.history.end_of(known):
            self.world.violated("key forgotten while its job lives", key, known[-12:], job_id[-12:])
        if known != job_id and known_body == body and self.world.clock_changed_at < 0 and self._is_repeated(known):
            self.world.violated("key forgotten while a redrive of its job lives", key, known[-12:], job_id[-12:])
        if self.thrown_away.get(job_id, asked_at) < asked_at and job_id not in self.history.seqs:
            self.world.violated("key names a job that is unknown", key, job_id[-12:])
        self.keys[key] = (body, job_id)

    def _is_repeated(self, job_id: str) -> bool:
        """Return True if what runs in the place of a job has not ended."""
        history, last = self.history, job_id
        while (successor := history.successors.get(last)) in history.seqs and successor is not None:
            last = successor
        return last != job_id and not history.end_of(last)

    def cancelled(self, batch_id: str, asked_at: float) -> None:
        """Note that a client was told that a batch is stopped."""
        if self.retried_at.get(batch_id, -1.0) < asked_at:
            self.stopped[batch_id] = self.world.loop.now
            self.world.note("cancel answered", batch_id)

    def retried(self, batch_id: str) -> None:
        """Note that somebody asks for a retry: what was stopped may run again."""
        self.retried_at[batch_id] = self.world.loop.now
        self.stopped.pop(batch_id, None)

    def check_claim(self, job_id: str) -> None:
        """Check that a job may be given to a worker now."""
        batch_id = self.history.headers[job_id].batch_id
        if batch_id in self.stopped:
            self.world.violated("ran after its batch was cancelled", batch_id, job_id[-12:])

    def check_repeat(self, job_id: str) -> None:
        """Check that a dead letter may run again."""
        if job_id in self.thrown_away:
            self.world.violated("runs again after its deletion was answered", job_id[-12:])

    def check_start(self, job: ClaimedJob) -> None:
        """Check that a job may be run now."""
        world, job_id = self.world, job.job_id
        header = self.history.headers.get(job_id)
        if header is None:
            world.violated("ran before it was on disk", job_id[-12:])
            return
        if job.inputs and header.on_error == "fail" and any(given.status != "completed" for given in job.inputs):
            world.violated("ran with a failed input", job_id[-12:], *(given.status for given in job.inputs))
        if header.run_at and max(world.latest, world.wall()) < header.run_at - _SLACK_S:
            world.violated("ran before its run_at", job_id[-12:], round(header.run_at - world.wall()))
        settled = world.loop.now > world.clock_changed_at + _SLACK_S
        if settled and header.expires_at and job.attempt == 1 and world.wall() > header.expires_at + _SLACK_S:
            world.violated("ran after its deadline", job_id[-12:], round(world.wall() - header.expires_at))
