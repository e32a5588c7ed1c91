"""Batches of thousands of jobs: read and checked some at a time, so that a replica goes on serving others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiqueue.errors import FieldError, ValidationError
from aiqueue.models import MAX_BATCH_JOBS, BatchBody, ChainBody, GraphBody
from aiqueue.testing.jobs import chat
from serve.bodies import parse_batch, parse_body, parse_chain, parse_graph
from tests.http.rig import Rig
from tests.tools.client_harness import ClientHarness

_T = TypeVar("_T")
JOBS = [chat(str(number)) for number in range(2_500)]


async def turns_while(work: Awaitable[_T]) -> int:
    """Return how often the loop turns while ``work`` is done."""
    task = asyncio.ensure_future(work)
    turns = 0
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    await task
    return turns


async def test_a_large_body_is_read_some_jobs_at_a_time() -> None:
    assert await turns_while(parse_batch(json.dumps({"jobs": JOBS}).encode())) >= 25


async def test_a_long_list_is_checked_some_jobs_at_a_time() -> None:
    async with ClientHarness() as system:
        client = await system.client()
        for work in (client.submit_jobs(JOBS), client.submit_batch(JOBS), client.check_jobs(JOBS)):
            assert await turns_while(work) >= 25


NODES = {f"n{number}": {"payload": job, "dependsOn": [f"n{number - 1}"][:number]} for number, job in enumerate(JOBS)}
BODIES: dict[str, tuple[type[pydantic.BaseModel], dict[str, Any]]] = {
    "/ai/jobs/batch": (BatchBody, {"jobs": JOBS}),
    "/ai/chains": (ChainBody, {"steps": JOBS[:1_000]}),
    "/ai/graphs": (GraphBody, {"nodes": NODES}),
}
BAD = chat("x") | {"temperature": "hot"}
LARGEST = 100 * (max(len(json.dumps(node)) for node in NODES.values()) + 20)  # bytes of a hundred nodes


@pytest.mark.parametrize("is_good", [True, False], ids=["good", "with a bad job"])
@pytest.mark.parametrize("path", BODIES)
async def test_no_step_validates_more_than_a_hundred_jobs_of_a_body(
    rig: Rig, path: str, is_good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, body = BODIES[path]
    sizes = []
    validate = model.model_validate_json

    def counted(raw: bytes) -> pydantic.BaseModel:
        sizes.append(len(raw))
        return validate(raw)

    monkeypatch.setattr(model, "model_validate_json", counted)
    if not is_good:
        ((field, jobs),) = body.items()
        body = {field: {**jobs, "bad": {"payload": BAD}} if isinstance(jobs, dict) else [*jobs[:-1], BAD]}
    answer = await rig.http.post(path, json=body)
    assert answer.status_code == (202 if is_good else 400), answer.text[:500]
    assert max(sizes) <= LARGEST
    assert len(sizes) >= len(JOBS[:1_000]) // 100


LISTED: list[type[pydantic.BaseModel]] = [ChainBody, GraphBody]
PARSERS: dict[type[pydantic.BaseModel], Callable[[bytes], Awaitable[pydantic.BaseModel]]] = {
    BatchBody: parse_batch,
    ChainBody: parse_chain,
    GraphBody: parse_graph,
}


def read(raw: bytes, model: type[pydantic.BaseModel] = BatchBody) -> tuple[object, object]:
    """Return what a body says when it is read at once, and in parts: its content, or what is wrong."""

    async def in_parts() -> pydantic.BaseModel:
        return await PARSERS[model](raw)

    def result(body: Any) -> object:
        try:
            return body()
        except ValidationError as error:
            return error.errors

    return result(lambda: parse_body(model, raw)), result(lambda: asyncio.run(in_parts()))


def places(errors: Iterable[FieldError]) -> set[str]:
    """Return the jobs, or the other fields, that are wrong."""
    return {".".join(error.field.split(".")[:2]) for error in errors}


odd_jobs = st.sampled_from([chat("x") | {"temperature": "hot"}, {}, 5, None, chat("y", config={"seed": 2**70})])
odd_fields = st.sampled_from(
    [{}, {"options": {"name": "n"}}, {"options": 5}, {"other": 1}, {"options": {"maxConcurrency": 0}}, {"jobs": 5}]
)


@settings(deadline=None)
@given(count=st.integers(0, 400), odd=st.dictionaries(st.integers(0, 400), odd_jobs, max_size=3), fields=odd_fields)
def test_a_body_read_in_parts_says_what_it_says_read_at_once(
    count: int, odd: dict[int, Any], fields: dict[str, Any]
) -> None:
    jobs = [odd.get(at, chat(str(at))) for at in range(count)]
    at_once, in_parts = read(json.dumps({"jobs": jobs} | fields).encode())
    assert in_parts == at_once


@settings(deadline=None)
@given(
    count=st.integers(0, 400),
    odd=st.dictionaries(st.integers(0, 400), odd_jobs, max_size=3),
    fields=odd_fields,
    model=st.sampled_from(LISTED),
    wrapped=st.booleans(),
)
def test_a_chain_or_a_graph_read_in_parts_says_what_it_says_read_at_once(
    count: int, odd: dict[int, Any], fields: dict[str, Any], model: type[pydantic.BaseModel], wrapped: bool
) -> None:
    jobs = [odd.get(at, chat(str(at))) for at in range(count)]
    if model is GraphBody:
        names = {2: "no name!", 3: "7"}
        body: dict[str, Any] = {
            "nodes": {names.get(at, f"n{at}"): {"payload": job} if wrapped else job for at, job in enumerate(jobs)}
        }
    else:
        body = {"steps": [{"name": f"s{at}", "payload": job} if wrapped else job for at, job in enumerate(jobs)]}
    at_once, in_parts = read(json.dumps(body | fields).encode(), model)
    if isinstance(in_parts, tuple) and isinstance(at_once, tuple) and len(named := places(in_parts)) >= 100:
        at_once = tuple(error for error in at_once if places([error]) <= named)  # no more are looked at
    assert in_parts == at_once


@pytest.mark.parametrize("count", [1_000, 1_001])
def test_a_chain_read_in_parts_is_held_to_its_limit(count: int) -> None:
    at_once, in_parts = read(json.dumps({"steps": JOBS[:count]}).encode(), ChainBody)
    assert in_parts == at_once
    assert isinstance(in_parts, tuple) is (count > 1_000)


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps({"jobs": JOBS[:1] * (MAX_BATCH_JOBS + 1)}).encode(),
        json.dumps({"jobs": JOBS}).encode()[:-9],
        json.dumps({"jobs": JOBS}).encode().replace(b'"2400"', b'"\xff"'),
        b"",
        b"[]",
    ],
    ids=["too many", "cut off", "no UTF-8", "empty", "a list"],
)
def test_a_body_that_is_wrong_as_a_whole_is_refused_in_the_same_words(raw: bytes) -> None:
    at_once, in_parts = read(raw)
    assert isinstance(at_once, tuple)
    assert in_parts == at_once
