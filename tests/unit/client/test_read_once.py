"""A call that is refused anyway leaves an iterator as it was; one with wrong payloads is read as far as shows that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from aiqueue.errors import StartError, ValidationError
from aiqueue.testing.jobs import chat
from tests.tools.client_harness import ClientHarness
from tests.unit.client.test_odd_values import answer_of
from tests.unit.client.test_sync_adapter import Connected, connected

__all__ = ["connected"]
Call = Callable[[Any, Iterator[Any]], Awaitable[Any]]

REFUSED: dict[str, Call] = {
    "submit_jobs, options": lambda c, rows: c.submit_jobs(rows, {"timeout": 1}),
    "submit_jobs, metadata": lambda c, rows: c.submit_jobs(rows, {"metadata": {"x": "x" * 2**20}}),
    "submit_jobs, batch_id": lambda c, rows: c.submit_jobs(rows, batch_id="a\nb"),
    "submit_batch, options": lambda c, rows: c.submit_batch(rows, {"timeout": 1}),
    "submit_batch, key": lambda c, rows: c.submit_batch(rows, idempotency_key=""),
    "redrive, patch": lambda c, rows: c.dead_letters.redrive(rows, max_retries=-1),
    "redrive, pace": lambda c, rows: c.dead_letters.redrive(rows, per_second=0),
}


def some() -> Iterator[Any]:
    return iter([chat(), chat()])


@pytest.mark.parametrize("call", REFUSED)
async def test_a_call_that_is_refused_anyway_reads_nothing(call: str) -> None:
    async with ClientHarness() as system:
        with pytest.raises(ValidationError):
            await REFUSED[call](await system.client(), rows := some())
        assert len(list(rows)) == 2


@pytest.mark.parametrize("call", REFUSED)
def test_a_blocking_call_that_is_refused_anyway_reads_nothing(connected: Connected, call: str) -> None:
    rows = some()
    with pytest.raises(ValidationError):
        answer_of(lambda: REFUSED[call](connected.adapter, rows))
    assert len(list(rows)) == 2


def test_a_client_that_was_stopped_reads_nothing(connected: Connected) -> None:
    connected.close()
    for call in (connected.adapter.submit_jobs, connected.adapter.submit_batch):
        with pytest.raises(StartError, match="stopped"):
            call(rows := some())  # type: ignore[arg-type]
        assert len(list(rows)) == 2


@pytest.mark.parametrize("name", ["submit_jobs", "submit_batch"])
def test_of_wrong_payloads_a_hundred_are_read(connected: Connected, name: str) -> None:
    wrong: Iterator[dict[str, Any]] = ({"type": "nothing", "n": n} for n in range(1_000))
    with pytest.raises(ValidationError) as refused:
        getattr(connected.adapter, name)(wrong)
    assert [error.index for error in refused.value.errors] == list(range(100))
    assert next(wrong)["n"] == 100
