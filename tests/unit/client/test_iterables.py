"""Lists that a program gives may come in any form that has an order, and each form has the outcome of a list.

An iterator can be read once, and so can some of what is none. A set has no order of its own: the order it is read in
differs between processes, so it may stand only where order has no meaning.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator
from copy import deepcopy
from typing import Any

import pytest

from aiqueue import protocol
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.client.sync_adapter import AIQueueAdapter
from aiqueue.errors import AIQueueError, ValidationError
from aiqueue.orchestrator.handles import checked_inputs
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.orchestrator.sync_orchestrator import AIJobOrchestrator
from aiqueue.testing.in_process import InProcessTransport
from aiqueue.testing.jobs import chat, completion
from aiqueue.validation import validate_job_payload
from tests.tools.client_harness import ClientHarness
from tests.unit.client.test_odd_values import all_of, answer_of, blocking
from tests.unit.client.test_sync_adapter import Connected


class Once:
    """No iterator, but what can be read once all the same, as the pages of Google's libraries."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = list(items)
        self._is_begun = False

    def __iter__(self) -> Iterator[Any]:
        if self._is_begun:
            raise ValueError("was begun before")
        self._is_begun = True
        return iter(self._items)


_RECORDED = ("submit", "get_jobs", "get_states", "cancel", "delete_dead_letters")
SHAPES: dict[str, Callable[[Iterable[Any]], Any]] = {
    "tuple": tuple,
    "generator": lambda items: (item for item in items),
    "map": lambda items: map(deepcopy, items),
    "iterator": iter,
    "keys": lambda items: dict.fromkeys(items).keys(),
    "what can be read once": Once,
    "values": lambda items: dict(enumerate(items)).values(),
}
Make = Callable[[Iterable[Any]], Any]
Place = Callable[[AsyncAIQueueAdapter, AsyncAIJobOrchestrator, Make, list[str]], Awaitable[Any]]
PAYLOADS = [validate_job_payload(completion(prompt)) for prompt in ("a", "b", "c")]
NODES = {name: {"payload": chat(name)} for name in ("a", "b")}


async def listen(client: AsyncAIQueueAdapter, names: Any) -> list[str]:
    return sorted(client.events(0, names=names)._names)


#: Where the order has a meaning: it is that of the results, or a key is compared by it.
ORDERED: dict[str, Place] = {
    "submit_jobs": lambda c, o, make, ids: c.submit_jobs(make(PAYLOADS)),
    "submit_jobs with a key": lambda c, o, make, ids: c.submit_jobs(make(PAYLOADS), {"idempotency_key": "k"}),
    "submit_batch": lambda c, o, make, ids: c.submit_batch(make(PAYLOADS), idempotency_key="k"),
    "chain": lambda c, o, make, ids: o.create_job_chain(make(PAYLOADS)),
    "graph": lambda c, o, make, ids: o.submit_graph(
        NODES | {"c": {"payload": chat("{{results[0]}}"), "depends_on": make(["b", "a"])}}
    ),
    "graph, as in HTTP": lambda c, o, make, ids: o.submit_graph(
        NODES | {"c": {"payload": chat("c"), "dependsOn": make(["b", "a"])}}
    ),
    "fan_in_job": lambda c, o, make, ids: o.fan_in_job(make(ids), chat("{{results[1]}}")),
}
UNORDERED: dict[str, Place] = {
    "check_jobs": lambda c, o, make, ids: c.check_jobs(make(PAYLOADS)),
    "wait_all": lambda c, o, make, ids: c.wait_all(make(ids)),
    "get_jobs": lambda c, o, make, ids: c.get_jobs(make(ids)),
    "redrive": lambda c, o, make, ids: c.dead_letters.redrive(make(ids)),
    "delete": lambda c, o, make, ids: c.dead_letters.delete(make(ids)),
    "events": lambda c, o, make, ids: listen(c, make(["job:completed", "job:failed"])),
    "submit_batch_job": lambda c, o, make, ids: o.submit_batch_job(make(PAYLOADS)),
    "fan_out": lambda c, o, make, ids: o.fan_out(make(PAYLOADS)),
    "map": lambda c, o, make, ids: all_of(o.map(make(PAYLOADS), run_id="r")),
}


def record(transport: InProcessTransport) -> list[bytes]:
    """Return a list that fills with what the client asks the queue."""
    asked: list[bytes] = []

    def recorded(name: str) -> Callable[..., Awaitable[Any]]:
        call = getattr(transport, name)

        async def ask(*args: Any, **more: Any) -> Any:
            asked.append(name.encode() + b" " + protocol.encode(args))
            return await call(*args, **more)

        return ask

    for name in _RECORDED:
        setattr(transport, name, recorded(name))
    return asked


def without_ids(asked: Iterable[bytes]) -> list[bytes]:
    """Return calls with ids numbered as they come: each run has others."""
    known: dict[bytes, bytes] = {}
    uuid = rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    return [re.sub(uuid, lambda found: known.setdefault(found[0], b"#%d" % len(known)), call) for call in asked]


async def outcome(place: Place, make: Make) -> tuple[list[bytes], str]:
    """Return what one call asks the queue of a new system, and the error that it raises."""
    async with ClientHarness() as system:
        client = await system.client()
        await system.work()
        ids = await client.submit_jobs(PAYLOADS)
        await client.wait_all(ids)
        await system.polled()  # an end that overtook the look-up of its job is looked up too
        asked = record(system.transport)
        error = ""
        try:
            await place(client, AsyncAIJobOrchestrator(client), make, ids)
        except AIQueueError as raised:
            error = type(raised).__name__
        submits = [call for call in asked if call.startswith(b"submit")]
        return without_ids(submits or dict.fromkeys(asked)), error  # how often jobs are looked up is by chance


@pytest.mark.parametrize("place", ORDERED | UNORDERED)
async def test_a_list_in_any_form_has_the_outcome_of_the_list(place: str) -> None:
    call = (ORDERED | UNORDERED)[place]
    wanted = await outcome(call, list)
    assert wanted[1] in ("", "DeadLetterNotFound")
    for shape, make in SHAPES.items():
        assert await outcome(call, make) == wanted, f"{place}: {shape}"


@pytest.mark.parametrize("kind", [set, frozenset])
@pytest.mark.parametrize("place", ORDERED)
async def test_a_set_is_refused_by_name_where_the_order_has_a_meaning(place: str, kind: Make) -> None:
    async with ClientHarness() as system:
        client = await system.client()
        ids = await client.submit_jobs(PAYLOADS)
        asked = record(system.transport)
        with pytest.raises(ValidationError, match="must have an order, and a set has none: give a list") as refused:
            await ORDERED[place](client, AsyncAIJobOrchestrator(client), kind, ids)
        assert refused.value.errors[0].field
        assert not asked


def test_a_set_of_ids_is_refused_for_every_fan_in() -> None:
    with pytest.raises(ValidationError, match=r"^job_ids: must have an order"):
        checked_inputs({"a", "b"}, "fail")


@pytest.mark.parametrize("place", UNORDERED)
async def test_a_set_is_taken_where_the_order_has_no_meaning(place: str) -> None:
    assert (await outcome(UNORDERED[place], set))[1] == (await outcome(UNORDERED[place], list))[1]


def blocking_outcome(place: Place, shape: Callable[[Any, list[Any]], Any]) -> tuple[list[bytes], str]:
    """As ``outcome``, of the blocking client; ``shape`` is given that client too."""
    connected = Connected()
    try:
        client: Any = connected.adapter
        orchestrator: Any = AIJobOrchestrator(client)
        connected.work()
        ids = client.submit_jobs(PAYLOADS)
        client.wait_all(ids)
        client.run(connected.system.polled())
        asked = record(connected.system.transport)
        error = ""
        try:
            answer_of(lambda: place(client, orchestrator, lambda items: shape(client, list(items)), ids))
        except AIQueueError as raised:
            error = type(raised).__name__
        submits = [call for call in asked if call.startswith(b"submit")]
        return without_ids(submits or dict.fromkeys(asked)), error
    finally:
        connected.close()


def through_a_connection(client: AIQueueAdapter, items: list[Any]) -> Iterator[Any]:
    """Return items in the order of a database that is for this thread alone; the client is called in between."""
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE rows (place)")
    database.executemany("INSERT INTO rows VALUES (?)", [(place,) for place in range(len(items))])

    def read() -> Iterator[Any]:
        for (place,) in database.execute("SELECT place FROM rows ORDER BY place"):
            client.ping()
            yield items[place]

    return read()


@pytest.mark.parametrize("place", blocking(ORDERED | UNORDERED))
def test_what_calls_the_blocking_client_when_it_is_read_has_the_outcome_of_the_list(place: str) -> None:
    call = (ORDERED | UNORDERED)[place]
    wanted = blocking_outcome(call, lambda client, items: items)
    assert wanted[1] in ("", "DeadLetterNotFound")
    assert blocking_outcome(call, through_a_connection) == wanted  # it calls the client when it is read
    assert blocking_outcome(call, lambda client, items: Once(items)) == wanted


@pytest.mark.parametrize("place", blocking(ORDERED))
def test_a_set_is_refused_by_the_blocking_client_too(place: str) -> None:
    assert blocking_outcome(ORDERED[place], lambda client, items: set(items)) == ([], "ValidationError")
