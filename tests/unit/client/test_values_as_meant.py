"""What a call is given is sent as its check reads it, and what a row holds is shown or refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.client.sync_adapter import AIQueueAdapter
from aiqueue.errors import ProviderServerError, RecordUnreadable, ValidationError
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.protocol import JobView
from aiqueue.providers.base import ProviderRequest
from aiqueue.testing.jobs import chat
from tests.tools.client_harness import ClientHarness
from tests.unit.client.test_odd_values import NOBODY, Call
from tests.unit.client.test_sync_adapter import Connected, connected

__all__ = ["connected"]


def fail(request: ProviderRequest) -> None:
    raise ProviderServerError("Provider sim: 500", status=500)


async def dead_letter(system: ClientHarness, client: AsyncAIQueueAdapter) -> str:
    system.provider.behave = fail
    await system.work()
    job_id = await client.submit_job(chat(), {"max_retries": 0, "metadata": {"a": 1}})
    assert (await client.wait(job_id)).status == "dead_letter"
    return job_id


@pytest.mark.parametrize("given", [3.0, np.int64(3), np.float64(3)])
async def test_the_retries_of_a_redrive_are_sent_as_the_number_they_mean(
    given: Any, system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    job_id = await dead_letter(system, client)
    (again,) = await client.dead_letters.redrive([job_id], max_retries=given)
    (view,) = await system.transport.get_jobs([again])
    assert view is not None
    assert view.header.max_retries == 3


@pytest.mark.parametrize("given", [10, np.int64(10), np.uint8(10)])
async def test_the_number_of_a_level_may_be_numpys_everywhere(given: Any, client: AsyncAIQueueAdapter) -> None:
    job = await client.get_job_status(await client.submit_job(chat(), {"priority": given}))
    assert job is not None
    assert job.priority == "high"
    assert (await client.schedules.add(chat(), "a", "@daily", priority=given)).priority == "high"
    assert (await client.schedules.add(chat(), "b", "@daily", options={"priority": given})).priority == "high"
    for flag in (True, np.bool_(True), np.float64(10.0)):
        with pytest.raises(ValidationError, match="priority"):
            await client.submit_job(chat(), {"priority": flag})


@pytest.mark.parametrize("part", ["attempts", "metadata", "payload"])
async def test_a_damaged_dead_letter_is_shown_and_its_redrive_refused_by_name(
    part: str, system: ClientHarness, client: AsyncAIQueueAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await dead_letter(system, client)
    read = system.transport.get_jobs

    async def damaged(ids: Sequence[str], *, with_payload: bool = False) -> list[JobView | None]:
        views = await read(ids, with_payload=with_payload)
        for view in filter(None, views):
            if part == "attempts":
                view.attempts = [b"\xff"]
            elif part == "metadata":
                view.header.metadata = b"{\xff"
            elif with_payload:
                view.payload = b'{"type": \xff'
        return views

    monkeypatch.setattr(system.transport, "get_jobs", damaged)
    info, payload = await client.dead_letters.inspect(job_id)
    if part == "payload":
        assert payload == b"null"
        with pytest.raises(RecordUnreadable, match=f"The payload of job {job_id} can't be read"):
            await client.dead_letters.redrive([job_id], model="model-a")
    else:
        assert msgspec.json.decode(payload)["model"] == "model-a"
        assert info.error is not None
        assert info.error.kind == "record_unreadable"


@dataclass
class Unhashable:
    """A listener that is compared by what it holds, so it has no hash."""

    heard: list[str]

    def __call__(self, event: Any) -> None:
        self.heard.append(event.name)


@pytest.mark.parametrize("name", [["x"], {}, "nope", None, b"x", "", np.array(["job:completed", "x"])])
def test_a_name_that_is_no_events_is_refused_and_leaves_nothing(connected: Connected, name: Any) -> None:
    adapter: AIQueueAdapter = connected.adapter
    for call in (adapter.on, adapter.once, adapter.off):
        with pytest.raises(ValidationError, match=r"^name: unknown event"):
            call(name, print)
    assert not adapter._handed_over


def test_a_listener_without_a_hash_is_called_and_taken_off(connected: Connected) -> None:
    connected.work()
    adapter: AIQueueAdapter = connected.adapter
    listener = Unhashable([])
    adapter.on("job:completed", listener)
    adapter.once("job:submitted", Unhashable(listener.heard))
    adapter.submit_job_with_callback(chat())
    connected.until(lambda: sorted(listener.heard) == ["job:completed", "job:submitted"])
    adapter.off("job:completed", listener)
    assert not adapter._handed_over
    assert not adapter.asynchronous._listeners.wanted()


class Owner:
    def method(self, event: Any) -> None: ...


def test_a_bound_method_is_taken_off_by_an_equal_one(connected: Connected) -> None:
    owner = Owner()
    connected.adapter.on("job:completed", owner.method)
    connected.adapter.off("job:completed", owner.method)
    assert not connected.adapter._handed_over
    assert not connected.adapter.asynchronous._listeners.wanted()


EMPTY: dict[str, Call] = {
    "submit_job": lambda c, o, key: c.submit_job(chat(), {"idempotency_key": key}),
    "submit_jobs": lambda c, o, key: c.submit_jobs([chat()], {"idempotency_key": key}),
    "submit_batch": lambda c, o, key: c.submit_batch([chat()], idempotency_key=key),
    "retry_failed": lambda c, o, key: o.retry_failed("batch-1", idempotency_key=key),
    "chain": lambda c, o, key: o.create_job_chain([chat()], idempotency_key=key),
    "graph": lambda c, o, key: o.submit_graph({"a": {"payload": chat()}}, idempotency_key=key),
    "fan_in_job": lambda c, o, key: o.fan_in_job([NOBODY], chat("{{results}}"), idempotency_key=key),
    "schedule_job": lambda c, o, key: o.schedule_job(chat(), "n", "@daily", idempotency_key=key),
    "schedules add": lambda c, o, key: c.schedules.add(chat(), "n", "@daily", idempotency_key=key),
    "schedules run_now": lambda c, o, key: c.schedules.run_now("n", idempotency_key=key),
}


@pytest.mark.parametrize("place", EMPTY)
async def test_an_empty_key_is_refused_by_name(place: str, client: AsyncAIQueueAdapter) -> None:
    with pytest.raises(ValidationError) as refused:
        await EMPTY[place](client, AsyncAIJobOrchestrator(client), "")
    assert refused.value.errors[0].field.endswith("idempotency_key")
    assert (await client.get_stats()).total_jobs == 0
