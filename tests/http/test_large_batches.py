"""Batches of thousands of jobs: read and checked some at a time, so that a replica goes on serving others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiqueue.errors import ValidationError
from aiqueue.models import MAX_BATCH_JOBS, BatchBody
from aiqueue.testing.jobs import chat
from serve.routes.shared import parse_batch, parse_body
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


def read(raw: bytes) -> tuple[object, object]:
    """Return what a body says when it is read at once, and in parts: its content, or what is wrong."""

    async def in_parts() -> BatchBody:
        return await parse_batch(raw)

    def result(body: Any) -> object:
        try:
            return body()
        except ValidationError as error:
            return error.errors

    return result(lambda: parse_body(BatchBody, raw)), result(lambda: asyncio.run(in_parts()))


odd_jobs = st.sampled_from([chat("x") | {"temperature": "hot"}, {}, 5, None, chat("y", config={"seed": 2**70})])
odd_fields = st.sampled_from(
    [{}, {"options": {"name": "n"}}, {"options": 5}, {"other": 1}, {"options": {"maxConcurrency": 0}}, {"jobs": 5}]
)


@given(count=st.integers(0, 400), odd=st.dictionaries(st.integers(0, 400), odd_jobs, max_size=3), fields=odd_fields)
def test_a_body_read_in_parts_says_what_it_says_read_at_once(
    count: int, odd: dict[int, Any], fields: dict[str, Any]
) -> None:
    jobs = [odd.get(at, chat(str(at))) for at in range(count)]
    at_once, in_parts = read(json.dumps({"jobs": jobs} | fields).encode())
    assert in_parts == at_once


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps({"jobs": JOBS[:1] * (MAX_BATCH_JOBS + 1)}).encode(),
        json.dumps({"jobs": JOBS}).encode()[:-9],
        json.dumps({"jobs": JOBS}).encode().replace(b'"2400"', b"NaN"),
        json.dumps({"jobs": JOBS}).encode().replace(b'"2400"', b'"\xff"'),
        b"",
        b"[]",
    ],
    ids=["too many", "cut off", "no number", "no UTF-8", "empty", "a list"],
)
def test_a_body_that_is_wrong_as_a_whole_is_refused_in_the_same_words(raw: bytes) -> None:
    at_once, in_parts = read(raw)
    assert isinstance(at_once, tuple)
    assert in_parts == at_once
