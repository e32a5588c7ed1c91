"""How often two workers change models while jobs for two models wait in one line."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

from aiqueue.config import Settings
from aiqueue.llama.affinity import AffinityRule
from aiqueue.llama.host import ModelHost
from aiqueue.providers.base import ProviderAnswer, ProviderRequest
from aiqueue.results import Choice, Message, Response, Usage
from aiqueue.testing.in_process import InProcessTransport, worker_beside
from aiqueue.testing.jobs import POOL, PROVIDER, group, header, submission
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns, until

SLOTS = 8
JOBS = 240


class NamedModel:
    def __init__(self, name: str) -> None:
        self.name = name

    def close(self) -> None:
        """Nothing to free."""


class OneModelAtATime:
    """A provider that holds one model, as a llama.cpp worker does; a job takes some turns of the loop."""

    job_types = frozenset({"chat_completion"})
    name = PROVIDER

    def __init__(self, rule: AffinityRule, order: list[str]) -> None:
        self.loads: list[str] = []
        self._order = order
        self.host: ModelHost[NamedModel] = ModelHost(self._load, rule=rule, name="x")

    def _load(self, name: str) -> NamedModel:
        self.loads.append(name)
        return NamedModel(name)

    async def run(self, request: ProviderRequest) -> ProviderAnswer:
        async with self.host.lend(request.model) as model:
            assert model.name == request.model
            await turns(3)
        self._order.append(request.model)
        response = Response(model=request.model, choices=[Choice(index=0, message=Message(content="Hi"))])
        return ProviderAnswer(response=response, usage=Usage(total_tokens=1), finish_reason="stop")

    async def health_check(self) -> None:
        return None

    async def close(self) -> None:
        await self.host.close()


def two_models(most_passes: int) -> Settings:
    """Return a system with one provider of two models; nothing of it is loaded here."""
    llama = {"parallel": SLOTS, "swap_after_jobs": most_passes}
    return Settings(
        providers={PROVIDER: {"kind": "llama_cpp", "models": ["a", "b"], "llama": llama}},
        pools={POOL: {"providers": [PROVIDER]}},
        models={"files": {name: {"path": f"{name}.gguf"} for name in "ab"}},
    )


def all_ended(ended: list[str], count: int) -> bool:
    return len(ended) == count


async def loads(models: str, *, workers: int, most_passes: int = 32, at_once: int = JOBS) -> list[int]:
    """Run a job for each letter, ``at_once`` accepted together; return how often each worker loaded a model."""
    harness = ServiceHarness(two_models(most_passes))
    transport = InProcessTransport(harness.service)
    ended: list[str] = []
    rule = AffinityRule(most_passes=most_passes, patience_s=60.0)
    providers = [OneModelAtATime(rule, ended) for _ in range(workers)]
    async with AsyncExitStack() as stack:
        for provider in providers:
            await stack.enter_async_context(worker_beside(transport, {PROVIDER: provider}, slots=SLOTS))
        await turns(50)  # all wait for work
        for at in range(0, len(models), at_once):
            some = models[at : at + at_once]
            await harness.service.submit([group(*(submission(job_header=header(model=model)) for model in some))])
            await until(partial(all_ended, ended, at + len(some)))
            await turns(50)
    for provider in providers:
        await provider.close()
    await harness.service.close()
    return [len(provider.loads) for provider in providers]


async def test_two_workers_share_two_models_between_them() -> None:
    assert await loads("ab" * (JOBS // 2), workers=2) in ([1, 1], [1, 2], [2, 1], [2, 2])


async def test_each_job_goes_to_the_worker_that_has_its_model_when_both_wait() -> None:
    assert await loads("ab" * 12 + "aabb" * 6, workers=2, at_once=2) == [1, 1]
    assert sum(await loads("ab" * 24, workers=2, at_once=1)) <= 3


async def test_one_worker_changes_its_model_once_in_as_many_jobs_as_may_pass() -> None:
    few, many = [sum(await loads("ab" * (JOBS // 2), workers=1, most_passes=most)) for most in (32, 8)]
    assert 2 <= few <= 1 + JOBS // 32
    assert few < many <= 1 + JOBS // 8
