"""The worker's loop: one long poll that carries finished work up and claims down.

Up to two polls are under way at once. While one waits at the queue for work, outcomes that turn up leave in a second
one, which sends the first home; so an outcome never waits, and under load the calls carry as many outcomes as gather
while they travel.

A grant can be lost on its way. So the worker names all that it holds in one call per heartbeat, and in each call after
one that brought nothing. The queue then grants again whatever else it has granted to this worker. The worker ignores
answers to calls made before such a call, and the queue gives nothing to a call that a later one has overtaken. A worker
holds a claim from the moment it takes the answer until the queue has acknowledged the outcome. What a grant has no room
for in its answer is given again the same way, at once.

A worker that is told to stop names all that it holds once more, and asks for no more. It ends when that call has its
answer and it has handed back what it was granted: left behind, those jobs would wait for the end of its lease, and each
would count a crash.

Half the slots at most turn over in one call. Jobs of equal length that began together also end together, and so do
those that follow them: an urgent one had to wait for the whole round, and the worker stood still while it was made.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from aiqueue.call_size import PART_BYTES, count_within, size_of_outcome
from aiqueue.errors import IncompatibleVersion, QueueNotRunning, QueueUnavailable, WorkerFault
from aiqueue.protocol import ClaimedJob, ExchangeCall, ExchangeReply, Outcome, encode
from aiqueue.versions import PROTOCOL
from aiqueue.worker.runner import JobRunner

_log = logging.getLogger(__name__)
_MAX_POLLS = 2
_RETRY_S = 0.2
_NO_QUEUE_S = 1.0
_REFUSED_S = 5.0  # a queue of another release stays so until somebody upgrades it, or this worker
_FULL_PAUSE_S = 0.01  # with no slot free a poll brings nothing but cancels; most often outcomes leave before it does
_MOST_FAILURES = 5  # of the queue on one outcome, before a failure takes its place
_STARTED_AT_ONCE = 64  # of many claims; then the loop turns, so that the first to end are on their way early

Attempt = tuple[str, int]


class WorkerQueue(Protocol):
    """The queue, as a worker sees it."""

    async def exchange(self, call: ExchangeCall) -> ExchangeReply:
        """Report outcomes and wait for claims.

        Raises QueueUnavailable when there was no answer, IncompatibleVersion where nothing is to be sent.
        """
        ...


class WorkerLoop:
    """Keeps up to ``slots`` jobs running until it is stopped."""

    def __init__(
        self,
        worker_id: str,
        pool: str,
        slots: int,
        *,
        queue: WorkerQueue,
        runner: JobRunner,
        between_jobs: Callable[[], None] | None = None,
        urgent_slots: int = 0,
        agree_every_s: float = 30.0,
    ) -> None:
        self._id, self._pool, self._slots = worker_id, pool, slots
        self._urgent_slots = urgent_slots  # of the slots, kept for urgent jobs
        self._turn = (slots + 1) // 2  # slots that turn over in one call, at most
        self._queue, self._runner = queue, runner
        self._between_jobs = between_jobs
        # What is held here is in one of these four: a claim passes through them in this order.
        self._received: dict[Attempt, ClaimedJob] = {}  # and not started yet
        self._running: dict[Attempt, asyncio.Task[Outcome]] = {}
        self._outcomes: list[Outcome] = []
        self._undelivered: set[Attempt] = set()  # outcomes in polls under way
        self._polls: set[asyncio.Task[None]] = set()
        self._account: asyncio.Task[None] | None = None  # of these, the last one that tells all that is held here
        self._calls = 0  # sent so far
        # A call was lost, or brought a part only, or this worker is to stop: tell the queue all that is held here.
        self._disagree = False
        self._unsure = False  # the newest call brought nothing: let the next one tell it too
        self._agreement = 0  # how often that was done; what was granted before will be granted again
        self._agree_every_s, self._agreed_at = agree_every_s, 0.0
        self._alone = 0  # outcomes to be sent one by one: the queue has failed on a call that had them
        self._failures: Counter[Attempt] = Counter()  # of calls that carried nothing but this outcome
        self._kick_due = False
        self._pause: asyncio.TimerHandle | None = None
        self._stopped = asyncio.Event()
        self._unheard = ""  # why the queue could not be asked, the last time
        self.refused = ""  #: why the queue and this worker do not understand each other; empty: they do

    async def run(self) -> None:
        """Work until ``stop`` has been called and all outcomes are delivered."""
        self._agreed_at = asyncio.get_running_loop().time()  # a new process holds nothing
        self._kick()
        await self._stopped.wait()
        for poll in self._polls:
            poll.cancel()

    async def stop(self, *, grace_s: float) -> None:
        """Take no more work; let running jobs end within ``grace_s`` seconds, then hand them back to the queue."""
        self._slots, self._disagree = 0, True
        self._kick_soon()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=grace_s)
        for task in self._running.values():
            task.cancel()
        await self._stopped.wait()

    @property
    def running(self) -> int:
        """How many jobs it runs or is about to start."""
        return len(self._running) + len(self._received)

    @property
    def draining(self) -> bool:
        """Whether it was told to stop."""
        return not self._slots

    def _kick_soon(self) -> None:
        """Look for something to send at the end of this turn of the loop, so that its outcomes leave together."""
        if not self._kick_due:
            self._kick_due = True
            asyncio.get_running_loop().call_soon(self._kick)

    def _kick(self) -> None:
        self._kick_due = False
        news = bool(self._outcomes) or self._disagree
        if not (self._slots or news or self.running or self._undelivered or self._account):
            self._stopped.set()
        elif news and len(self._polls) < _MAX_POLLS:
            self._send()
            if self._outcomes:
                self._kick()
        elif not self._polls:
            if self.running < self._slots:
                self._send()
            elif self._pause is None:
                self._pause = asyncio.get_running_loop().call_later(_FULL_PAUSE_S, self._pause_over)

    def _pause_over(self) -> None:
        self._pause = None
        if not self._polls and not self._stopped.is_set():
            self._send()

    def _send(self) -> None:
        if self._pause:
            self._pause.cancel()
            self._pause = None
        call = self._next_call()
        poll = asyncio.create_task(self._poll(call, self._agreement))
        self._polls.add(poll)
        if call.running is not None:
            self._account = poll
        poll.add_done_callback(self._poll_ended)

    def _poll_ended(self, poll: asyncio.Task[None]) -> None:
        self._polls.discard(poll)
        if poll is self._account:
            self._account = None
        if not poll.cancelled() and (error := poll.exception()):
            _log.error("worker %s: bug in its loop", self._id, exc_info=error)
        if not self._stopped.is_set():
            self._kick()

    def _next_call(self) -> ExchangeCall:
        """Take what is to be said, in one step: what is not held here was never received."""
        most, now = len(self._outcomes), asyncio.get_running_loop().time()
        agree = self._disagree or self._unsure or now >= self._agreed_at + self._agree_every_s
        if agree:
            self._disagree, self._unsure, self._agreed_at = False, False, now
            self._agreement += 1
        elif self._slots:
            most = self._turn
        if self._alone:
            most, self._alone = 1, self._alone - 1
        if len(self._outcomes) > 1:
            most = min(most, count_within(map(size_of_outcome, self._outcomes[:most]), PART_BYTES))
        outcomes, self._outcomes = self._outcomes[:most], self._outcomes[most:]
        running = self._held() if agree else None  # an outcome that is not in this call is held here too
        self._undelivered.update((outcome.job_id, outcome.attempt) for outcome in outcomes)
        self._calls += 1
        return ExchangeCall(
            self._id,
            self._pool,
            self._slots,
            outcomes,
            running,
            urgent_slots=min(self._urgent_slots, self._slots),
            most=self._turn,
            number=self._calls,
            protocol=PROTOCOL,
        )

    def _held(self) -> list[Attempt]:
        outcomes = ((outcome.job_id, outcome.attempt) for outcome in self._outcomes)
        return [*self._received, *self._running, *outcomes, *self._undelivered]

    async def _poll(self, call: ExchangeCall, agreement: int) -> None:
        try:
            reply = await self._queue.exchange(call)
        except Exception as error:
            # Whatever went wrong, the outcomes must not be lost: the queue would wait for them for ever.
            if isinstance(error, IncompatibleVersion):
                await self._be_refused(str(error))
            else:
                await self._be_unheard(error)
            if not isinstance(error, QueueUnavailable | IncompatibleVersion):
                self._suspect(call.outcomes, error)
            self._outcomes = call.outcomes + self._outcomes
            self._disagree = True
            return
        finally:
            self._undelivered.difference_update((outcome.job_id, outcome.attempt) for outcome in call.outcomes)
        self.refused, self._unheard = "", ""
        if self._failures:  # of others: they are sent again while these are taken
            for outcome in call.outcomes:
                self._failures.pop((outcome.job_id, outcome.attempt), None)
        if agreement != self._agreement:
            # A queue that started again may hold this as granted: it no longer knows of the account that came first.
            self._disagree = self._disagree or (bool(reply.claims) and self._account is None)
            return
        await self._obey(reply, agreed=call.running is not None)
        # An idle worker only: where jobs run it would put off an answer under way, and the next heartbeat is soon.
        self._unsure = not reply.claims and call.number == self._calls and not (self.running or self._undelivered)
        self._disagree = self._disagree or reply.more or (reply.overtaken and call.running is not None)

    async def _be_refused(self, reason: str) -> None:
        """Say it once, and try again less often: it takes somebody to change it."""
        if reason != self.refused:
            _log.error("worker %s: %s", self._id, reason)
        self.refused = reason
        await asyncio.sleep(_REFUSED_S)

    async def _be_unheard(self, error: Exception) -> None:
        """Say once what is wrong, and try again; less often where there is no queue, which somebody has to start."""
        if str(error) != self._unheard:
            _log.warning("worker %s: %s", self._id, error, exc_info=not isinstance(error, QueueUnavailable))
        self._unheard = str(error)
        await asyncio.sleep(_NO_QUEUE_S if isinstance(error, QueueNotRunning) else _RETRY_S)

    def _suspect(self, outcomes: list[Outcome], error: Exception) -> None:
        """Let no outcome on which the queue fails keep the others from it: send each alone, and then its failure."""
        if len(outcomes) > 1:
            self._alone = max(self._alone, len(outcomes))
            return
        for at, outcome in enumerate(outcomes):
            attempt = (outcome.job_id, outcome.attempt)
            self._failures[attempt] += 1
            if self._failures[attempt] >= _MOST_FAILURES:
                del self._failures[attempt]
                fault = WorkerFault(f"Worker fault: the queue could not take the outcome ({type(error).__name__})")
                outcomes[at] = Outcome(*attempt, failure=fault.to_failure())

    async def _obey(self, reply: ExchangeReply, *, agreed: bool) -> None:
        """Take the whole answer in one step, and start its jobs over several turns of the loop."""
        claimed = [(job.job_id, job.attempt) for job in reply.claims]
        held = set(self._held()) if agreed else self._running  # only an answer to an account gives anything again
        self._received |= {at: job for at, job in zip(claimed, reply.claims, strict=True) if at not in held}
        for attempt in reply.cancels:
            if task := self._running.get(attempt):
                task.cancel()
            elif self._received.pop(attempt, None):
                self._hand_back(attempt)
        for first in range(0, len(claimed), _STARTED_AT_ONCE):
            for attempt in claimed[first : first + _STARTED_AT_ONCE]:
                if job := self._received.pop(attempt, None):
                    self._start(attempt, job)
            await asyncio.sleep(0)

    def _start(self, attempt: Attempt, job: ClaimedJob) -> None:
        if self._slots:
            task = self._running[attempt] = asyncio.create_task(self._runner.run(job))
            task.add_done_callback(lambda ended: self._ended(attempt, ended))
        else:  # claimed before the queue heard of our end
            self._hand_back(attempt)

    def _hand_back(self, attempt: Attempt) -> None:
        """Report a job that was not started."""
        self._outcomes.append(Outcome(*attempt, cancelled=True))
        self._kick_soon()

    def _ended(self, attempt: Attempt, task: asyncio.Task[Outcome]) -> None:
        del self._running[attempt]
        # A task that is cancelled before its first step never reaches the runner.
        self._outcomes.append(Outcome(*attempt, cancelled=True) if task.cancelled() else _outcome_of(attempt, task))
        self._kick_soon()
        if self._between_jobs:
            self._between_jobs()


def _outcome_of(attempt: Attempt, task: asyncio.Task[Outcome]) -> Outcome:
    if error := task.exception():  # the runner lets none out, unless it is one that should end the process
        _log.error("job %s, attempt %d: bug in the worker", *attempt, exc_info=error)
        fault = WorkerFault(f"Worker fault: {type(error).__name__}; see the worker's log")
        return Outcome(*attempt, failure=fault.to_failure())
    return sendable(task.result())


def sendable(outcome: Outcome) -> Outcome:
    """Return ``outcome``, or a failure in its place if it can't be encoded: a call carries it with those of others."""
    try:
        encode(outcome)
    except Exception as error:
        _log.exception("job %s, attempt %d: its outcome can't be encoded", outcome.job_id, outcome.attempt)
        fault = WorkerFault(
            f"Worker fault: the outcome can't be encoded ({type(error).__name__}); see the worker's log"
        )
        return Outcome(outcome.job_id, outcome.attempt, failure=fault.to_failure())
    return outcome
