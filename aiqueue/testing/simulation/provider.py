"""The provider that the workers call: it answers well or badly as the seed says, and counts what has to be paid."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from aiqueue.errors import JobError
from aiqueue.protocol import ClaimedJob, Outcome
from aiqueue.providers.base import ProviderAnswer, ProviderRequest
from aiqueue.providers.classify import from_answer
from aiqueue.results import Choice, Message, Response, Usage
from aiqueue.testing.jobs import PROVIDER
from aiqueue.testing.simulation.world import World
from aiqueue.worker.runner import JobRunner

_SOON_S = 0.1  # a provider that said 429 is not asked for the same job again within that
_LATE_S = 5.0  # a stall and a clock's correction may hide that much of a time limit
ODD_TEXTS = ("half \ud83d", "\x00", "\udfff\ud800", "x" * 9_000, "\u202e\ufeff", "1e999", "{{results}}", "")


class Bill:
    """Every call, by job."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.attempts: Counter[tuple[str, int]] = Counter()
        self.excused: Counter[str] = Counter()  #: by job: calls that may be made again
        self.refused_at: dict[str, float] = {}  #: by job: when the provider said 429


class SimulatedAnswers:
    """A provider in a worker that may die under it."""

    def __init__(self, world: World, bill: Bill, die: Callable[[], None]) -> None:
        self._world, self._bill, self._die = world, bill, die
        self.name = PROVIDER
        self.job_types = frozenset({"chat_completion", "text_completion", "embedding"})

    async def run(self, request: ProviderRequest) -> ProviderAnswer:
        """Answer, fail, hang or end the worker."""
        world, job_id = self._world, request.job_id
        self._bill.calls[job_id] += 1
        refused_at = self._bill.refused_at.pop(job_id, None)
        if refused_at is not None and world.passed() < refused_at + _SOON_S:
            world.violated("asked again at once after 429", job_id[-12:])
        text = str(request.body["messages"][-1]["content"])
        if "at once" not in text:
            await asyncio.sleep(world.work_s())
        if "poison" in text and world.storm:
            world.note("poison", job_id[-12:])
            self._die()
            await asyncio.sleep(3600.0)
        if "bad" in text:
            raise self._error(400, {}, job_id)
        if "down" in text:
            raise self._error(500, {}, job_id)
        if world.strikes("hang", 0.05):
            await asyncio.sleep(1e6)
        if world.strikes("limits", 0.15):
            self._bill.refused_at[job_id] = world.passed()
            raise self._error(429, world.draws.choice(_LIMITS), job_id)
        if world.strikes("bad answer", 0.15):
            raise self._error(world.draws.choice((400, 404, 408, 500, 503, 529)), {}, job_id)
        if world.strikes("bad answer", 0.02):
            raise RuntimeError(world.draws.choice(ODD_TEXTS))
        return self._answer(request)

    async def health_check(self) -> None:
        """Always healthy."""

    async def close(self) -> None:
        """Nothing to let go of."""

    def _error(self, status: int, headers: dict[str, str], job_id: str) -> JobError:
        odd = self._world.strikes("odd text", 0.3)
        text = self._world.draws.choice(ODD_TEXTS) if odd else "simulated"
        error = from_answer(
            status, headers, {"error": {"message": text, "code": text}}, provider=self.name, now=self._world.wall()
        )
        self._world.note("provider", status, dict(headers), job_id[-12:], "odd" if odd else "")
        return error

    def _answer(self, request: ProviderRequest) -> ProviderAnswer:
        world = self._world
        odd = world.strikes("odd text", 0.15)
        text = world.draws.choice(ODD_TEXTS) if odd else "well"
        total = world.draws.choice((5, 2**63, -1, 0)) if odd else 5
        usage = Usage(prompt_tokens=3, completion_tokens=2, total_tokens=total)
        choice = Choice(index=0, message=Message(content=text), finish_reason="stop")
        raw = {"n": world.draws.choice((float("nan"), 2**64, "\ud800"))} if odd else None
        return ProviderAnswer(
            response=Response(model=request.model, choices=[choice]), usage=usage, finish_reason="stop", raw=raw
        )


_LIMITS: tuple[dict[str, str], ...] = (
    {},
    {"retry-after": "0"},
    {"retry-after": "0"},
    {"retry-after": "1"},
    {"retry-after": "10"},
    {"retry-after": "nan"},
    {"retry-after": "-5"},
    {"retry-after": "1e999"},
    {"x-ratelimit-reset-requests": "3s"},
)


class WatchedRunner(JobRunner):
    """Checks what a worker is given to run."""

    def __init__(
        self, world: World, bill: Bill, answers: SimulatedAnswers, check: Callable[[ClaimedJob], None]
    ) -> None:
        super().__init__(lambda name: answers, max_result_bytes=2**16)
        self._world, self._bill, self._check = world, bill, check

    async def run(self, job: ClaimedJob) -> Outcome:
        """Run it, and see that no attempt is run twice."""
        self._bill.attempts[job.job_id, job.attempt] += 1
        self._world.note("start", job.job_id[-12:], job.attempt)
        if self._bill.attempts[job.job_id, job.attempt] > 1:
            self._world.violated("attempt run twice", job.job_id[-12:], job.attempt)
        self._check(job)
        outcome = await super().run(job)
        if outcome.cancelled or (outcome.failure and outcome.failure.retryable):
            self._bill.excused[job.job_id] += 1
        return outcome
