"""The Python client answers odd values or refuses them by name, and no other caller waits because of them.

Every public method gets odd values in every place, while another caller of the same client waits for a job.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import AIQueueError, ValidationError
from aiqueue.ids import new_job_ids
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.orchestrator.sync_orchestrator import AIJobOrchestrator
from aiqueue.testing.jobs import chat
from aiqueue.views import JobInfo
from tests.tools.client_harness import ClientHarness
from tests.unit.client.test_loop_thread import in_thread
from tests.unit.client.test_sync_adapter import Connected, connected

__all__ = ["connected"]
T = TypeVar("T")
NOBODY = new_job_ids(1)[0]


class NoText:
    """Hashable, comparable and nothing else."""


NESTED: list[Any] = []
NESTED.append(NESTED)
LOOP: dict[str, Any] = {}
LOOP["itself"] = LOOP
ODD: dict[str, Any] = {
    "zero": 0,
    "a payload that contains itself": chat(config={"extra_body": LOOP}),
    "a generator": (payload for payload in ()),
    "half a pair": "\ud800",
    "both kinds": "é\udfff",
    "a line break": "a\nb",
    "no end": "x" * 100_000,
    "no text": "",
    "none": None,
    "beyond 64 bits": 2**70,
    "the largest of 64 bits": 2**64 - 1,
    "beyond the journal": 2**63,
    "below all": -(2**70),
    "minus one": -1,
    "half": 0.5,
    "no number": float("nan"),
    "no end of it": float("inf"),
    "tiny": 5e-324,
    "true": True,
    "bytes": b"\xff",
    "an empty list": [],
    "a list": ["\ud800", 5, None],
    "a dict": {"\ud800": 5},
    "in itself": NESTED,
    "an object": NoText(),
    "the first moment": datetime.min,
    "a moment": datetime(2030, 1, 1, tzinfo=UTC),
    "a uuid": UUID(NOBODY),
    "a type": JobInfo,
    "an array without a dimension": np.array("abc"),
}

Call = Callable[[AsyncAIQueueAdapter, AsyncAIJobOrchestrator, Any], Awaitable[Any]]


async def first_of(stream: Any) -> Any:
    """Open a stream of events and look at it once."""
    async with stream:
        return await stream.poll(0.0)


async def listen(client: AsyncAIQueueAdapter, name: Any) -> None:
    client.on(name, print)


async def all_of(results: Any) -> list[Any]:
    return [each async for each in results] if hasattr(results, "__aiter__") else list(results)


CALLS: dict[str, Call] = {
    "submit_job payload": lambda c, o, x: c.submit_job(x),
    "submit_job prompt": lambda c, o, x: c.submit_job(chat(x)),
    "submit_job model": lambda c, o, x: c.submit_job(chat(model=x)),
    "submit_job seed": lambda c, o, x: c.submit_job(chat(config={"seed": x})),
    "submit_job extra": lambda c, o, x: c.submit_job(chat(config={"extra_body": {"x": x}})),
    "submit_job options": lambda c, o, x: c.submit_job(chat(), x),
    "submit_job scope": lambda c, o, x: c.submit_job(chat(), {"idempotency_key": "k"}, scope=x),
    "submit_jobs payloads": lambda c, o, x: c.submit_jobs(x),
    "submit_jobs with an id": lambda c, o, x: c.submit_jobs(x, {"job_id": NOBODY}),
    "submit_jobs batch_id": lambda c, o, x: c.submit_jobs([chat()], batch_id=x),
    "submit_batch payloads": lambda c, o, x: c.submit_batch(x),
    "submit_batch key": lambda c, o, x: c.submit_batch([chat()], idempotency_key=x),
    "submit_batch scope": lambda c, o, x: c.submit_batch([chat()], idempotency_key="k", scope=x),
    "check_jobs": lambda c, o, x: c.check_jobs(x),
    "wait": lambda c, o, x: c.wait(x),
    "wait_all": lambda c, o, x: c.wait_all(x),
    "wait_all one of": lambda c, o, x: c.wait_all([NOBODY, x]),
    "get_job_status": lambda c, o, x: c.get_job_status(x),
    "get_jobs": lambda c, o, x: c.get_jobs(x),
    "get_jobs one of": lambda c, o, x: c.get_jobs([NOBODY, x]),
    "cancel_job": lambda c, o, x: c.cancel_job(x),
    "events after": lambda c, o, x: first_of(c.events(after=x)),
    "events names": lambda c, o, x: first_of(c.events(names=x)),
    "events one name": lambda c, o, x: first_of(c.events(names=[x])),
    "events job_id": lambda c, o, x: first_of(c.events(job_id=x)),
    "on": lambda c, o, x: listen(c, x),
    "dead letters limit": lambda c, o, x: c.dead_letters.find(limit=x),
    "dead letters reason": lambda c, o, x: c.dead_letters.find(reason=x),
    "dead letters model": lambda c, o, x: c.dead_letters.find(model=x),
    "dead letters tag": lambda c, o, x: c.dead_letters.find(tag=x),
    "dead letters since": lambda c, o, x: c.dead_letters.find(since=x),
    "dead letters page limit": lambda c, o, x: c.dead_letters.page(limit=x),
    "dead letters cursor": lambda c, o, x: c.dead_letters.page(cursor=x),
    "dead letters inspect": lambda c, o, x: c.dead_letters.inspect(x),
    "dead letters redrive": lambda c, o, x: c.dead_letters.redrive(x),
    "dead letters redrive one of": lambda c, o, x: c.dead_letters.redrive([x]),
    "dead letters model patch": lambda c, o, x: c.dead_letters.redrive([NOBODY], model=x),
    "dead letters retries": lambda c, o, x: c.dead_letters.redrive([NOBODY], max_retries=x),
    "dead letters pace": lambda c, o, x: c.dead_letters.redrive([NOBODY], per_second=x),
    "dead letters delete": lambda c, o, x: c.dead_letters.delete(x),
    "dead letters delete one of": lambda c, o, x: c.dead_letters.delete([x]),
    "schedules add payload": lambda c, o, x: c.schedules.add(x, "n", "@daily"),
    "schedules add name": lambda c, o, x: c.schedules.add(chat(), x, "@daily"),
    "schedules add line": lambda c, o, x: c.schedules.add(chat(), "n", x),
    "schedules add zone": lambda c, o, x: c.schedules.add(chat(), "n", "@daily", timezone=x),
    "schedules add jitter": lambda c, o, x: c.schedules.add(chat(), "n", "@daily", jitter=x),
    "schedules add priority": lambda c, o, x: c.schedules.add(chat(), "n", "@daily", priority=x),
    "schedules add options": lambda c, o, x: c.schedules.add(chat(), "n", "@daily", options=x),
    "schedules add key": lambda c, o, x: c.schedules.add(chat(), "n", "@daily", idempotency_key=x),
    "schedules get": lambda c, o, x: c.schedules.get(x),
    "schedules next_runs": lambda c, o, x: c.schedules.next_runs(x),
    "schedules count": lambda c, o, x: c.schedules.next_runs("n", x),
    "schedules history": lambda c, o, x: c.schedules.history(x),
    "schedules limit": lambda c, o, x: c.schedules.history("n", x),
    "schedules pause": lambda c, o, x: c.schedules.pause(x),
    "schedules remove": lambda c, o, x: c.schedules.remove(x),
    "schedules run_now": lambda c, o, x: c.schedules.run_now(x),
    "schedules run_now key": lambda c, o, x: c.schedules.run_now("n", idempotency_key=x),
    "schedule_job": lambda c, o, x: o.schedule_job(chat(), x),
    "schedule_job key": lambda c, o, x: o.schedule_job(chat(), "n", "@daily", idempotency_key=x),
    "cancel_schedule": lambda c, o, x: o.cancel_schedule(x),
    "submit_batch_job rows": lambda c, o, x: o.submit_batch_job(x),
    "submit_batch_job row": lambda c, o, x: o.submit_batch_job([x]),
    "submit_batch_job options": lambda c, o, x: o.submit_batch_job([chat()], x),
    "submit_batch_job concurrency": lambda c, o, x: o.submit_batch_job([chat()], max_concurrency=x),
    "submit_batch_job ratio": lambda c, o, x: o.submit_batch_job([chat()], max_failed_ratio=x),
    "submit_batch_job name": lambda c, o, x: o.submit_batch_job([chat()], name=x),
    "fan_out": lambda c, o, x: o.fan_out([chat()], tags=x),
    "get_batch_job_status": lambda c, o, x: o.get_batch_job_status(x),
    "wait_batch": lambda c, o, x: o.wait_batch(x),
    "iter_results": lambda c, o, x: all_of(o.iter_results(x)),
    "iter_results after": lambda c, o, x: all_of(o.iter_results("batch-1", after=x)),
    "results_page after": lambda c, o, x: o.results_page("batch-1", x),
    "results_page limit": lambda c, o, x: o.results_page("batch-1", limit=x),
    "cancel_batch_job": lambda c, o, x: o.cancel_batch_job(x),
    "pause_batch_job": lambda c, o, x: o.pause_batch_job(x),
    "resume_batch_job": lambda c, o, x: o.resume_batch_job(x),
    "retry_failed": lambda c, o, x: o.retry_failed(x),
    "retry_failed key": lambda c, o, x: o.retry_failed("batch-1", idempotency_key=x),
    "map rows": lambda c, o, x: all_of(o.map(x, run_id="r")),
    "map row": lambda c, o, x: all_of(o.map([x], run_id="r")),
    "map run_id": lambda c, o, x: all_of(o.map([chat()], run_id=x)),
    "map key": lambda c, o, x: all_of(o.map([chat()], run_id="r", key=lambda row: x)),
    "map options": lambda c, o, x: all_of(o.map([chat()], run_id="r", options=x)),
    "chain steps": lambda c, o, x: o.create_job_chain(x),
    "chain step": lambda c, o, x: o.create_job_chain([chat(), x]),
    "chain name": lambda c, o, x: o.create_job_chain([{"name": x, "payload": chat()}]),
    "chain payload": lambda c, o, x: o.create_job_chain([{"name": "a", "payload": x}]),
    "chain options": lambda c, o, x: o.create_job_chain([chat()], x),
    "chain concurrency": lambda c, o, x: o.create_job_chain([chat()], max_concurrency=x),
    "chain key": lambda c, o, x: o.create_job_chain([chat()], idempotency_key=x),
    "chain scope": lambda c, o, x: o.create_job_chain([chat()], idempotency_key="k", scope=x),
    "graph nodes": lambda c, o, x: o.submit_graph(x),
    "graph node": lambda c, o, x: o.submit_graph({"a": x}),
    "graph payload": lambda c, o, x: o.submit_graph({"a": {"payload": x}}),
    "graph needs": lambda c, o, x: o.submit_graph({"a": {"payload": chat(), "depends_on": x}}),
    "graph need": lambda c, o, x: o.submit_graph({"a": {"payload": chat(), "depends_on": [x]}}),
    "graph on_error": lambda c, o, x: o.submit_graph({"a": {"payload": chat(), "on_error": x}}),
    "graph concurrency": lambda c, o, x: o.submit_graph({"a": {"payload": chat()}}, max_concurrency=x),
    "get_graph_status": lambda c, o, x: o.get_graph_status(x),
    "to_mermaid": lambda c, o, x: o.to_mermaid(x),
    "fan_in": lambda c, o, x: o.fan_in(x, len),
    "fan_in on_error": lambda c, o, x: o.fan_in([NOBODY], len, on_error=x),
    "fan_in_job ids": lambda c, o, x: o.fan_in_job(x, chat("{{results}}")),
    "fan_in_job id": lambda c, o, x: o.fan_in_job([x], chat("{{results}}")),
    "fan_in_job payload": lambda c, o, x: o.fan_in_job([NOBODY], x),
    "fan_in_job on_error": lambda c, o, x: o.fan_in_job([NOBODY], chat("{{results}}"), on_error=x),
    "fan_in_job concurrency": lambda c, o, x: o.fan_in_job([NOBODY], chat("{{results}}"), max_concurrency=x),
    "fan_in_job key": lambda c, o, x: o.fan_in_job([NOBODY], chat("{{results}}"), idempotency_key=x),
    "result_ref": lambda c, o, x: o.result_ref(x),
}


async def error_of(call: Callable[[], Awaitable[Any]]) -> Exception | None:
    """Return what a call raises; a call that gets no answer raises TimeoutError."""
    try:
        async with asyncio.timeout(120):
            await call()
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("place", CALLS)
async def test_an_odd_value_is_answered_or_refused_by_name_and_holds_up_nobody(place: str) -> None:
    async with ClientHarness() as system:
        client = await system.client()
        await system.work()
        async with AsyncAIJobOrchestrator(client) as orchestrator, asyncio.timeout(60):
            for what, value in ODD.items():
                beside = asyncio.create_task(client.submit_job_with_callback(chat()))
                error = await error_of(lambda value=value: CALLS[place](client, orchestrator, value))
                assert error is None or isinstance(error, AIQueueError), f"{place}: {what}: {error!r:.300}"
                assert not isinstance(error, ValidationError) or all(item.field for item in error.errors)
                assert (await beside).text == "Hi there", f"{place}: {what}"


#: Nothing of these is in the blocking client.
_ASYNCHRONOUS = ("check_jobs", "events", "results_page", "scope")


def blocking(calls: Mapping[str, T]) -> dict[str, T]:
    """Return those of a table that the blocking client has too."""
    return {name: call for name, call in calls.items() if not any(word in name for word in _ASYNCHRONOUS)}


def answer_of(call: Callable[[], Any]) -> Any:
    """Return what a call of the blocking client returns, in a thread: it must not take the tests with it."""

    def answer() -> Any:
        answered: Any = call()
        return asyncio.run(answered) if inspect.isawaitable(answered) else answered

    return in_thread(answer).result(60)


@pytest.mark.parametrize("place", blocking(CALLS))
def test_an_odd_value_is_answered_or_refused_by_name_by_the_blocking_client(place: str, connected: Connected) -> None:
    connected.work()
    orchestrator: Any = AIJobOrchestrator(connected.adapter)
    client: Any = connected.adapter
    for what, value in ODD.items():
        with contextlib.suppress(AIQueueError):
            answer_of(lambda value=value: CALLS[place](client, orchestrator, value))
        assert client.submit_job_with_callback(chat()).text == "Hi there", f"{place}: {what}"


def test_every_method_that_takes_something_is_tried() -> None:
    called = " ".join(CALLS)
    skipped = {
        "once",
        "off",
        "submit_job_with_callback",
        "run",
        "start",
        "stop",
        "ping",
        "get_stats",
        "get_system_stats",
    }
    for kind in (AsyncAIQueueAdapter, AsyncAIJobOrchestrator):
        for name in vars(kind):
            if not name.startswith("_") and callable(vars(kind)[name]) and name not in skipped:
                assert name.removeprefix("create_job_").removeprefix("submit_") in called, name
