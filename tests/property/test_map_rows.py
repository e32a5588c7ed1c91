"""Rows that are mapped again and again while their jobs are deleted, forgotten, redriven and retried."""

from __future__ import annotations

import asyncio

import hypothesis.strategies as st
from hypothesis import example, given, settings

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import AIQueueError, ProviderServerError
from aiqueue.orchestrator.mapping import MapResult
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.providers.base import ProviderRequest
from aiqueue.testing.jobs import chat
from aiqueue.testing.jobs import settings as queue_settings
from tests.tools.client_harness import ClientHarness
from tests.tools.gates import never_closed
from tests.tools.turns import until

_KEPT_S = 86_400.0
_ROWS = ("row 1", "row 2")
_HOURS = (1, 5, 20)


class MappedRows:
    """One run of two rows; its provider answers only the rows of ``well``."""

    def __init__(self, system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
        self._system, self._client, self._made = system, client, AsyncAIJobOrchestrator(client)
        self._well = frozenset[str]()
        self._completed: dict[str, float] = {}  #: by row: when it last completed
        self._calls: list[str] = []  #: rows that the provider was asked for since the last step began
        self._batches: list[str] = []
        system.provider.behave = self._answer

    def _answer(self, request: ProviderRequest) -> None:
        (row,) = [row for row in _ROWS if row in str(request.body)]
        self._calls.append(row)
        if row not in self._well:
            raise ProviderServerError("Provider sim: 503", status=503)
        self._completed[row] = self._system.queue.clock.now()

    def _is_done(self, row: str) -> bool:
        """Return True while the job that completed the row is kept."""
        return self._system.queue.clock.now() - self._completed.get(row, -_KEPT_S) < _KEPT_S

    async def step(self, name: str, well: frozenset[str]) -> None:
        """Make one step; rows that are done may not run in it."""
        self._well, self._calls = well, []
        done = {row for row in _ROWS if self._is_done(row)}
        await getattr(self, f"_{name}")()
        await until(lambda: not self._system.queue.service._engine.core.live)
        assert not done & set(self._calls), f"{name} ran a row again that had completed"

    async def _map(self) -> None:
        rows = [chat(row) for row in _ROWS]
        done = {row for row in _ROWS if self._is_done(row)}
        found: list[MapResult] = [each async for each in self._made.map(rows, run_id="r", max_retries=0)]
        for row, each in zip(_ROWS, found, strict=True):
            assert each.job.status == "completed" or row not in done
            self._batches += [each.job.batch_id] if each.job.batch_id else []

    async def _delete(self) -> None:
        await self._client.dead_letters.delete([job.job_id for job in await self._client.dead_letters.find()])

    async def _redrive(self) -> None:
        """Redrive the dead letters of rows that are not done. One of a row that is done would run again, as asked."""
        for job in await self._client.dead_letters.find():
            _, payload = await self._client.dead_letters.inspect(job.job_id)
            if not any(row in payload.decode() and self._is_done(row) for row in _ROWS):
                await self._client.dead_letters.redrive([job.job_id])
                await until(lambda: not self._system.queue.service._engine.core.live)

    async def _retry(self) -> None:
        for batch_id in dict.fromkeys(self._batches):
            try:
                await self._made.retry_failed(batch_id)
            except AIQueueError:  # the batch is forgotten
                continue
            await until(lambda: not self._system.queue.service._engine.core.live)

    async def _wait(self) -> None:
        self._system.queue.clock.advance(3_600.0 * _HOURS[len(self._well)])
        await self._system.queue.forget_old()


async def _run(steps: list[tuple[str, frozenset[str]]]) -> None:
    async with ClientHarness(never_closed(queue_settings(retry_s=0.0, models=("model-a",)))) as system:
        rows = MappedRows(system, await system.client())
        await system.work()
        for name, well in steps:
            await rows.step(name, well)


_NONE, _ONE, _BOTH = frozenset[str](), frozenset(_ROWS[:1]), frozenset(_ROWS)
_STEPS = st.tuples(
    st.sampled_from(["map", "map", "delete", "redrive", "retry", "wait"]), st.sampled_from([_NONE, _ONE, _BOTH])
)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(_STEPS, min_size=3, max_size=14))
@example(steps=[("map", _ONE), ("map", _BOTH), ("delete", _BOTH), ("map", _BOTH)])
@example(steps=[("map", _NONE), ("wait", _BOTH), ("map", _BOTH), ("wait", _ONE), ("map", _BOTH)])
@example(steps=[("map", _NONE), ("wait", _BOTH), ("redrive", _BOTH), ("wait", _ONE), ("map", _BOTH)])
@example(steps=[("map", _NONE), ("map", _BOTH), ("retry", _BOTH)])
def test_a_row_that_completed_never_runs_again_while_its_job_is_kept(steps: list[tuple[str, frozenset[str]]]) -> None:
    asyncio.run(asyncio.wait_for(_run(steps), 60))
