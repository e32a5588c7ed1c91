"""The orchestrator of programs without an event loop, where it is more than the other one's methods."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from aiqueue.client.sync_adapter import AIQueueAdapter
from aiqueue.errors import ValidationError
from aiqueue.orchestrator.sync_orchestrator import AIJobOrchestrator
from aiqueue.testing.jobs import chat
from tests.unit.cli.conftest import Beside


@pytest.fixture
def queue() -> Iterator[Beside]:
    """Return a queue in a thread of its own; no worker yet."""
    beside = Beside()
    yield beside
    beside.close()


@pytest.fixture
def orchestrator(queue: Beside) -> Iterator[AIJobOrchestrator]:
    """Return an orchestrator over a client of that queue."""
    adapter: AIQueueAdapter = queue.join("", None).adapter
    yield AIJobOrchestrator(adapter)
    adapter.stop()


def numbers(count: int) -> list[dict[str, Any]]:
    return [chat(str(number)) for number in range(count)]


@pytest.mark.timeout(60)  # it would wait for ever
def test_the_results_of_a_batch_can_be_the_rows_of_the_next(queue: Beside, orchestrator: AIJobOrchestrator) -> None:
    queue.add_worker()
    first = orchestrator.submit_batch_job(numbers(30))
    texts = (chat(f"again {each.index}") for each in orchestrator.iter_results(first))
    second = orchestrator.submit_batch_job(texts)
    rows = (chat(f"third {each.index}") for each in orchestrator.iter_results(second))
    assert [each.index for each in orchestrator.map(rows, run_id="run")] == list(range(30))
    assert orchestrator.wait_batch(second).completed == 30


def test_rows_are_read_in_the_callers_thread(orchestrator: AIJobOrchestrator) -> None:
    read_in = set[int]()

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(1_500):
            read_in.add(threading.get_ident())
            yield chat(str(number))

    assert len(orchestrator.fan_out(rows()).job_ids) == 1_500
    assert read_in == {threading.get_ident()}


@pytest.mark.timeout(60)  # it would wait for ever
def test_keys_are_made_in_the_callers_thread(queue: Beside, orchestrator: AIJobOrchestrator) -> None:
    adapter, made_in = orchestrator._adapter, set[int]()

    def key(row: Any) -> str:
        made_in.add(threading.get_ident())
        adapter.ping()
        return f"{adapter.get_stats().total_jobs}-{row['messages'][0]['content']}"

    queue.add_worker()
    results = list(orchestrator.map(numbers(1_002), run_id="run", key=key))
    assert [each.key.partition("-")[2] for each in results] == [str(number) for number in range(1_002)]
    assert made_in == {threading.get_ident()}
    with pytest.raises(LookupError):
        list(orchestrator.map(numbers(2), run_id="other", key=lambda row: {}[row["type"]]))


@pytest.mark.parametrize("error", [KeyboardInterrupt, LookupError])
def test_what_ends_the_rows_comes_to_the_caller_and_leaves_nothing(
    queue: Beside, orchestrator: AIJobOrchestrator, error: type[BaseException]
) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield from numbers(2_500)
        raise error

    with pytest.raises(error):
        orchestrator.submit_batch_job(rows())
    while orchestrator.get_stats().active_batches:
        pass
    assert orchestrator._adapter.get_stats().total_jobs == 0


@pytest.mark.parametrize("jobs", [5, None, {"type": "chat_completion"}])
def test_what_is_no_list_of_rows_is_said_to_be_none(orchestrator: AIJobOrchestrator, jobs: Any) -> None:
    with pytest.raises(ValidationError, match="jobs: is "):
        orchestrator.submit_batch_job(jobs)
