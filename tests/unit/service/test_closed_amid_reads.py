"""A queue that closes while a call reads its journal: the call is to be made again, of the next queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from inspect import getmembers, isfunction
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall, ResultsCall
from aiqueue.engine.schedule_records import SchedulesCall
from aiqueue.errors import QueueUnavailable
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.protocol import BatchSpec, DeadLettersCall, Need, Submission, SubmitGroup
from aiqueue.service.answering import AnsweredCalls
from aiqueue.testing.jobs import completed, failed, final, group, header, retryable, settings, submission
from tests.tools.schedules import SCHEDULE, spec
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import until

NO_READS = {
    "commit",
    "fill_log",
    "fold_log",
    "has_room",
    "reopen",
    "recover",
    "newest_id",
    "read_note",
    "write_note",
    "close",
}
READS = [name for name, _ in getmembers(SqliteJournal, isfunction) if not name.startswith("_") and name not in NO_READS]


class StoppedJournal(SqliteJournal):
    """Its n-th read, counted from ``stop_at``, waits; then ``met`` is set, and ``go_on`` lets it go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, durability="off")
        self.met, self.go_on = asyncio.Event(), threading.Event()
        self._loop, self._left = asyncio.get_running_loop(), -1

    def stop_at(self, number: int) -> None:
        """Let the read with this number wait; the next one is 1."""
        self._left = number

    def _read(self, name: str, *args: Any, **named: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            self._loop.call_soon_threadsafe(self.met.set)
            self.go_on.wait()
        return getattr(SqliteJournal, name)(self, *args, **named)


for name in READS:
    setattr(StoppedJournal, name, lambda self, *args, _name=name, **named: self._read(_name, *args, **named))


def keyed(job_id: str, **fields: object) -> Submission:
    return submission(job_id, replace(header(), idempotency_key="key", **fields))


def graph(needed: str, *, jobs: int = 1, key: str = "") -> SubmitGroup:
    made = [
        replace(header(batch_id="g"), index=at, needs=(Need(needed),), on_error="include", idempotency_key=key)
        for at in range(jobs)
    ]
    sent = [submission(f"g{at}", each) for at, each in enumerate(made)]
    for job in sent[1:]:
        job.header.idempotency_key = ""
    return SubmitGroup(sent, batch=BatchSpec("g", "graph"))


async def half_dropped(queue: ServiceHarness) -> None:
    """Leave a batch that is being dropped."""
    made = [submission(f"o{at}", replace(header(batch_id="o"), index=at)) for at in range(2_500)]
    assert await queue.service.submit([SubmitGroup(made, batch=BatchSpec("o", is_open=True))]) == [None]
    queue.service.batches._steer(BatchCall("o", "drop"))
    assert queue.service._drops.under_way


Prepare = Callable[[ServiceHarness], Awaitable[object]]
Call = Callable[[ServiceHarness], Awaitable[object]]


def submits(*groups: SubmitGroup) -> Call:
    return lambda queue: queue.service.submit(groups)


def of_batch(action: str, batch_id: str = "b", token: str = "") -> Call:
    return lambda queue: queue.service.batches.call(BatchCall(batch_id, action, token=token))


#: By call: what is prepared for it, and how it is made.
CALLS: dict[str, list[tuple[Prepare | None, Call]]] = {
    "submit": [
        (None, submits(group(keyed("new")))),
        (None, submits(group(keyed("new")), group("other", maybe_known=True))),
        (None, submits(group("new", maybe_known=True))),
        (None, submits(graph("done"))),
        (None, submits(graph("done", jobs=1_500))),
        (None, submits(graph("done", jobs=1_500, key="key"))),
        (None, submits(group(submission("new", replace(header(), redriven_from="dead"))))),
        (half_dropped, submits(group(keyed("new")))),
        (half_dropped, submits(graph("done"))),
    ],
    "exchange": [
        (None, lambda queue: queue.exchange(slots=9)),
    ],
    "get_jobs": [
        (None, lambda queue: queue.service.get_jobs(["done"], with_payload=True)),
        (None, lambda queue: queue.service.get_jobs(["done", "live", "dead", "tried", "unknown"])),
        (half_dropped, lambda queue: queue.service.get_jobs(["done", "o2499"])),
    ],
    "cancel": [(None, lambda queue: queue.service.cancel(["live", "done"]))],
    "list_dead_letters": [(None, lambda queue: queue.service.dead_letters.find(DeadLettersCall()))],
    "delete_dead_letters": [(None, lambda queue: queue.service.dead_letters.delete(["dead", "b1"]))],
    "schedules": [
        (None, lambda queue: queue.service.schedules.answer(SchedulesCall("add", spec=spec(number=1), key="key"))),
        (None, lambda queue: queue.service.schedules.answer(SchedulesCall("run", SCHEDULE, job_id="run"))),
    ],
    "get_states": [
        (None, lambda queue: queue.service.batches.states(["done", "live", "unknown"])),
        (half_dropped, lambda queue: queue.service.batches.states(["done", "o2499"])),
    ],
    "batch": [
        (None, of_batch("status")),
        (None, of_batch("retry_failed", token="t")),
        (None, of_batch("drop_run", "run", token="next")),
    ],
    "batch_results": [
        (None, lambda queue: queue.service.batches.results(ResultsCall("b"))),
        (None, lambda queue: queue.service.batches.results(ResultsCall("b", ordered=False))),
    ],
    "stats": [(None, lambda queue: queue.service.counted_stats())],
}
READS_NOTHING = {"hello", "events", "pool_loads", "lose_worker", "announce", "commit_waits_s"}


WAYS = [pytest.param(*way, id=f"{name}-{at}") for name, ways in CALLS.items() for at, way in enumerate(ways)]


async def filled(path: Path) -> ServiceHarness:
    """Return a queue with jobs in each state, an ended batch of which two failed, and a schedule."""
    queue = ServiceHarness(settings(cache_bytes=0), StoppedJournal(path))
    await queue.submit("done", "dead", "tried", max_retries=1)
    parts = [submission(f"b{at}", replace(header(max_retries=0, batch_id="b"), index=at)) for at in range(3)]
    await queue.service.submit([SubmitGroup(parts, batch=BatchSpec("b"))])
    failures = {"dead": final(), "tried": retryable(), "b1": final(), "b2": final()}
    while queue.ready():
        claims = await queue.claim(9)
        outcomes = [failed(each, failure=failures[each]) if each in failures else completed(each) for each in claims]
        await queue.exchange(*outcomes, slots=0)
    await queue.submit("live")
    waits = submission("w", replace(header(batch_id="w"), needs=(Need("done"),), on_error="include"))
    assert await queue.service.submit([SubmitGroup([waits], batch=BatchSpec("w"))]) == [None]
    await queue.service.schedules.answer(SchedulesCall("add", spec=spec()))
    queue.service._ticker.close()
    await queue.service._retention.close()
    assert queue.service._engine.core.groups.live.keys() == {"w"}
    return queue


async def closed_at_read(number: int, path: Path, prepare: Prepare | None, call: Call) -> bool:
    """Close a queue amid this read of a call, which must say so. Return False if the call makes no such read."""
    queue = await filled(path)
    journal = queue.journal
    assert isinstance(journal, StoppedJournal)
    if prepare is not None:
        await prepare(queue)
    journal.stop_at(number)
    answer, met = asyncio.ensure_future(call(queue)), asyncio.ensure_future(journal.met.wait())
    async with asyncio.timeout(60.0):
        await asyncio.wait([answer, met], return_when=asyncio.FIRST_COMPLETED)
        is_met = met.done()
        met.cancel()
        await queue.service.close()
        journal.go_on.set()
        if not is_met:
            await answer
            return False
        with pytest.raises(QueueUnavailable):
            await answer
        return True


@pytest.mark.parametrize(("prepare", "call"), WAYS)
async def test_a_queue_that_closes_amid_any_read_of_a_call_lets_it_be_made_again(
    tmp_path: Path, prepare: Prepare | None, call: Call
) -> None:
    number = 1
    while await closed_at_read(number, tmp_path / f"{number}.db", prepare, call):
        number += 1
    assert number > 1


def test_each_call_that_reads_the_journal_is_tried() -> None:
    calls = {name for name in vars(AnsweredCalls) if not name.startswith("_")}
    assert calls == CALLS.keys() | READS_NOTHING


async def test_a_call_that_waits_for_results_is_answered_when_the_queue_closes(queue: ServiceHarness) -> None:
    made = SubmitGroup([submission("b0", header(batch_id="b"))], batch=BatchSpec("b"))
    assert await queue.service.submit([made]) == [None]
    waits = asyncio.ensure_future(queue.service.batches.results(ResultsCall("b", wait_s=3_600.0)))
    waiters = queue.service.batches._waiting
    await until(lambda: any(waiter._callbacks for waiter in waiters.get("b", ())))  # it has read, and waits
    await queue.service.close()
    with pytest.raises(QueueUnavailable):
        async with asyncio.timeout(60.0):
            await waits
