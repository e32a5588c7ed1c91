"""Work that goes on by itself."""

from __future__ import annotations

import asyncio

import pytest

from aiqueue.background import until_done


async def test_work_that_fails_is_done_again_until_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    async def work() -> None:
        tries.append(len(tries))
        if len(tries) < 4:
            raise KeyError("seq")

    await until_done(work, "reading the report", retry_s=0.0)
    assert len(tries) == 4
    assert [record.getMessage() for record in caplog.records] == ["reading the report failed; next try in 0 s"] * 3
    assert all(record.exc_info for record in caplog.records), "each with its traceback"


async def test_work_that_is_cancelled_is_not_done_again() -> None:
    began: list[int] = []

    async def work() -> None:
        began.append(1)
        await asyncio.Event().wait()

    task = asyncio.create_task(until_done(work, "waiting", retry_s=0.0))
    while not began:  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert began == [1]
