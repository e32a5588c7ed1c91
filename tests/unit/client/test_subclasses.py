"""Texts and numbers of subclasses (numpy's, members of enums) are taken like the plain ones that they are equal to.

Only plain ones can be encoded, and calls are shared, so one of a subclass could stop every wait of its process. Every
place of the client's methods gets them, in step with a second client that gets the plain ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from aiqueue.client import given
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import AIQueueError, ValidationError
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.orchestrator.result_reader import ResultReader
from aiqueue.testing.jobs import chat
from tests.tools.client_harness import ClientHarness
from tests.unit.client.test_odd_values import CALLS, NOBODY, Call, all_of, error_of


class Text(str):
    """As a program's own kind of id may be."""


class Whole(int):
    """A number with a name of its own."""


class Part(float):
    """The same, for parts of a number."""


def text_enum(text: str) -> object:
    # Made by a call, as the texts come from the table; type checkers take the members' names from the source only.
    return Enum("Mixed", {"ONE": text}, type=str)["ONE"]  # type: ignore[index]


def str_enum(text: str) -> object:
    return StrEnum("Texts", {"ONE": text})["ONE"]  # type: ignore[index]


TEXTS: list[Callable[[str], object]] = [Text, np.str_, str_enum, text_enum]
NUMBERS = [Whole(5), np.int64(5), np.uint8(5), IntEnum("Numbers", {"FIVE": 5})["FIVE"], Whole(-1)]  # type: ignore[index]
PARTS = [Part(0.5), np.float64(0.5)]
LIKE: list[tuple[object, object]] = [
    *((kind(text), text) for text in ("job:completed", NOBODY) for kind in TEXTS),
    *((Text(text), text) for text in ("", "x", "*", "fail", "chat_completion", "sim", "model-a", "\ud800")),
    *((number, int(number)) for number in NUMBERS),
    *((part, float(part)) for part in PARTS),
    (np.array([NOBODY, "job:completed"]), [NOBODY, "job:completed"]),
]
PLACES: dict[str, Call] = CALLS | {
    "provider": lambda c, o, x: c.submit_job(chat() | {"provider": x}),
    "type": lambda c, o, x: c.submit_job(chat() | {"type": x}),
    "role": lambda c, o, x: c.submit_job(chat() | {"messages": [{"role": x, "content": "Hi"}]}),
    "tag": lambda c, o, x: c.submit_job(chat(), {"tags": [x]}),
    "metadata": lambda c, o, x: c.submit_job(chat(), {"metadata": {"x": x}}),
    "metadata's key": lambda c, o, x: c.submit_job(chat(), {"metadata": {str(x): {"x": [x]}}}),
    "retries": lambda c, o, x: c.submit_job(chat(), {"max_retries": x}),
    "job id": lambda c, o, x: c.submit_job(chat(), {"job_id": x}),
    "job key": lambda c, o, x: c.submit_job(chat(), {"idempotency_key": x}),
    "redrive at a pace": lambda c, o, x: c.dead_letters.redrive([], per_second=x),
    "node's name": lambda c, o, x: o.submit_graph({as_key(x): {"payload": chat()}}),
    "results_page order": lambda c, o, x: o.results_page("batch-1", ordered=x if isinstance(x, int) else True),
    "iter_results order": lambda c, o, x: all_of(o.iter_results("batch-1", ordered=x if isinstance(x, int) else True)),
}


def as_key(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | np.ndarray) else value


def outcome(error: Exception | None, value: object) -> str:
    """Return what became of a call."""
    if error is None:
        return "answered"
    assert isinstance(error, AIQueueError), f"{value!r:.70}: {error!r:.300}"
    assert not isinstance(error, ValidationError) or all(item.field for item in error.errors)
    return type(error).__name__


@pytest.mark.parametrize("place", PLACES)
async def test_a_value_of_a_subclass_has_the_outcome_of_the_plain_one(place: str) -> None:
    async with ClientHarness() as system, ClientHarness() as other, asyncio.timeout(60):
        clients = [await each.client() for each in (system, other)]
        await system.work()
        await other.work()
        a, b = [AsyncAIJobOrchestrator(client) for client in clients]
        for odd, plain in LIKE:
            beside = asyncio.create_task(clients[0].submit_job_with_callback(chat()))
            found = outcome(await error_of(lambda odd=odd: PLACES[place](clients[0], a, odd)), odd)
            wanted = outcome(await error_of(lambda plain=plain: PLACES[place](clients[1], b, plain)), plain)
            assert found == wanted or not isinstance(odd, type(plain)), f"{place}: {odd!r:.70}"  # an array is no list
            assert (await beside).text == "Hi there", f"{place}: {odd!r:.70}"


@pytest.mark.parametrize("kind", TEXTS)
async def test_a_stream_that_was_given_a_text_of_a_subclass_holds_up_no_wait(
    kind: Callable[[str], Any], system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    job_id = await client.submit_job(chat())
    of_job, of_name = client.events(0, job_id=kind(job_id)), client.events(0, names=[kind("job:completed")])
    heard = asyncio.get_running_loop().create_future()
    client.on(kind("job:completed"), heard.set_result)
    async with of_job, of_name, asyncio.timeout(120):
        polls = [asyncio.ensure_future(stream.poll(30.0)) for stream in (of_job, of_name)]
        await system.work()
        assert (await client.wait(kind(job_id))).status == "completed"
        assert (await polls[0])[0].job_id == (await polls[1])[0].job_id == (await heard).job_id == job_id


@pytest.mark.parametrize("kind", TEXTS)
async def test_a_result_read_by_an_id_of_a_subclass_fails_no_other_reader(
    kind: Callable[[str], Any], system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    ids = await client.submit_jobs([chat("a"), chat("b")])
    reader = ResultReader(system.transport)
    reads = [asyncio.ensure_future(reader.read(job_id)) for job_id in (ids[0], kind(ids[1]))]
    await system.work()
    assert [(await read).text for read in reads] == ["Hi there", "Hi there"]


@pytest.mark.parametrize("kind", TEXTS)
async def test_what_is_stored_of_texts_of_a_subclass_is_what_was_meant(
    kind: Callable[[str], Any], system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    await system.work()
    payload = chat(kind("Hello"), model=kind("model-a"), config={"seed": Whole(7), "temperature": np.float64(0.5)})
    options = {"tags": [kind("t")], "metadata": {kind("k"): kind("v")}}
    job_id = await client.submit_job(payload, options)
    await client.wait(job_id)
    job = await client.get_job_status(job_id)
    assert job is not None
    assert (job.status, job.model, job.tags, job.metadata) == ("completed", "model-a", ("t",), {"k": "v"})
    assert system.provider.calls[0].body["messages"][0]["content"] == "Hello"
    orchestrator = AsyncAIJobOrchestrator(client)
    graph = await orchestrator.submit_graph(
        {
            kind("a"): {"payload": payload},
            "b": {"payload": chat("{{steps.a}}"), "depends_on": [kind("a")], "on_error": kind("include")},
        }
    )
    assert list(graph) == ["a", "b"]
    assert [job.status for job in await client.wait_all(list(graph.values()))] == ["completed", "completed"]
    await client.submit_jobs([payload], batch_id=kind("night-7"))
    assert (await orchestrator.wait_batch(kind("night-7"))).batch_id == "night-7"


@pytest.mark.parametrize("kind", TEXTS)
def test_ids_and_names_come_out_as_plain_texts(kind: Callable[[str], Any]) -> None:
    found = [given.text("x", kind("a")), given.job_id(kind("a")), *given.job_ids([kind("a")])]
    assert [(type(each), each) for each in found] == [(str, "a")] * 3


def test_numbers_and_times_come_out_as_plain_ones() -> None:
    class Moment(datetime):
        def timestamp(self) -> float:
            return np.float64(super().timestamp())

    assert [(type(each), each) for each in (given.number("n", five) for five in NUMBERS[:4])] == [(int, 5)] * 4
    assert type(given.moment("since", Moment(2030, 1, 1, tzinfo=UTC))) is float
    for value in (np.bool_(True), np.array([1, 2]), np.float64(1.0)):
        with pytest.raises(ValidationError, match="n: must be a whole number, not"):
            given.number("n", value)


def test_a_time_that_is_none_is_refused_by_name() -> None:
    class NoTime(datetime):  # as pandas' NaT
        def timestamp(self) -> float:
            return float("nan")

    with pytest.raises(ValidationError, match="since: must be a time, not"):
        given.moment("since", NoTime(2030, 1, 1))


def test_a_uuid_of_a_subclass_is_an_id() -> None:
    class Ours(UUID):
        def __str__(self) -> str:
            return Text(super().__str__())

    assert type(given.job_id(Ours(NOBODY))) is str
