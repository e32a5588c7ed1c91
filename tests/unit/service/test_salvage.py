"""A queue that starts from a database in which a row can't be loaded goes on without it, or says what is wrong."""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall, BatchView
from aiqueue.engine.counters import Counters, decode_counters, encode_counters
from aiqueue.engine.records import decode_progress
from aiqueue.engine.schedule_records import SchedulesCall
from aiqueue.errors import StartError
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.protocol import BatchSpec, SubmitGroup
from aiqueue.testing.jobs import completed, header, submission
from tests.tools.killed_journal import open_unsealed, settings_at
from tests.tools.schedules import spec
from tests.tools.service_harness import ServiceHarness

PLAIN = ("plain-1", "plain-2")


class Site:
    """A queue with a journal on disk, which a test spoils with SQL while it is stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self) -> ServiceHarness:
        """Start the queue."""
        journal = open_unsealed(self.path)
        try:
            return ServiceHarness(settings_at(self.path), journal)
        except BaseException:
            journal.close()
            raise

    async def fill(self) -> None:
        """Leave a job that ended, one that runs, others that wait, a batch of two, a gate and a schedule."""
        queue = self.start()
        await queue.submit("done", "runs", "bad", *PLAIN)
        assert await queue.claim(2) == ["done", "runs"]
        await queue.exchange(completed("done"), slots=0)
        jobs = [submission(job_id, header(batch_id="batch")) for job_id in ("batch-1", "batch-2")]
        await queue.service.submit([SubmitGroup(jobs, batch=BatchSpec("batch"))])
        await queue.service.schedules.answer(SchedulesCall("add", "hourly", spec=spec("0 * * * *")))
        await queue.service.close()

    def spoil(self, statement: str, *values: object) -> None:
        """Change the journal."""
        journal = open_unsealed(self.path)
        assert journal._writer.execute(statement, values).rowcount == 1
        journal.close()

    def end_of(self, seq: int) -> tuple[str, str]:
        """Return the state of a job, whatever its id, and the kind of its failure."""
        with closing(sqlite3.connect(self.path)) as connection:
            state, progress = connection.execute("SELECT state, progress FROM states WHERE seq = ?", [seq]).fetchone()
        failure = decode_progress(progress).failure
        return state, failure.kind if failure else ""

    def change_counters(self, change: Callable[[Counters], None]) -> None:
        """Change the counters."""
        journal = SqliteJournal(self.path, durability="off")
        with journal.recover() as found:
            counters = decode_counters(found.counters)
        journal.close()
        change(counters)
        self.spoil("UPDATE counters SET body = ?", encode_counters(counters))


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    """Return a queue that has stopped."""
    site = Site(tmp_path / "journal.db")
    await site.fill()
    return site


async def batch(queue: ServiceHarness, batch_id: str = "batch") -> BatchView:
    return await queue.service.batches.call(BatchCall(batch_id))


async def run_all(queue: ServiceHarness) -> list[str]:
    """Let the worker of before report, and run all that waits; return what was given to it."""
    reply = await queue.exchange(slots=16, running=[("runs", 1)])
    given = [claim.job_id for claim in reply.claims]
    await queue.exchange(*map(completed, ("runs", *given)), slots=0)
    return given


SPOILED = {
    "its id is no UTF-8": "UPDATE jobs SET id = CAST(x'ff41' AS TEXT) WHERE id = 'bad'",
    "its id is no UTF-8 and a blob": "UPDATE jobs SET id = x'ff41' WHERE id = 'bad'",
    "its header is no header": "UPDATE jobs SET header = x'c1' WHERE id = 'bad'",
    "its header is no blob": "UPDATE jobs SET header = 'no header' WHERE id = 'bad'",
    "its header is a number": "UPDATE jobs SET header = 7 WHERE id = 'bad'",
    "its state is no UTF-8": "INSERT INTO states SELECT seq, CAST(x'ff' AS TEXT), x'', 0 FROM jobs WHERE id = 'bad'",
    "its progress is no blob": "INSERT INTO states SELECT seq, 'processing', 'none', 0.0 FROM jobs WHERE id = 'bad'",
}


@pytest.mark.parametrize("statement", SPOILED.values(), ids=SPOILED.keys())
async def test_a_row_that_can_not_be_loaded_costs_its_own_job_and_is_named_in_the_log(
    site: Site, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.spoil(statement)
    with caplog.at_level(logging.CRITICAL):
        queue = site.start()
    assert f"the journal {site.path} has rows that can't be loaded" in caplog.text
    assert "jobs, row 3 (" in caplog.text
    assert await run_all(queue) == [*PLAIN, "batch-1", "batch-2"]
    views = await queue.service.get_jobs(["done", "runs", *PLAIN, "batch-1", "batch-2"])
    assert [view and view.status for view in views] == ["completed"] * 6
    await queue.service.close()
    assert site.end_of(3) == ("failed", "record_unreadable")
    after = site.start()
    assert not after.service._engine.core.live
    await after.service.close()


@pytest.mark.parametrize("table", ["header", "payload"])
async def test_a_flipped_bit_that_makes_a_text_of_a_blob_changes_nothing(site: Site, table: str) -> None:
    site.spoil(f"UPDATE jobs SET {table} = CAST({table} AS TEXT) WHERE id = 'bad'")
    queue = site.start()
    assert await run_all(queue) == ["bad", *PLAIN, "batch-1", "batch-2"]
    assert (await queue.view("bad")).status == "completed"
    await queue.service.close()


async def test_a_state_that_can_not_be_read_counts_no_second_end_in_its_batch(site: Site) -> None:
    queue = site.start()
    await queue.exchange(slots=0, running=[("runs", 1)])
    assert await queue.claim(4, worker="worker-2") == ["bad", *PLAIN, "batch-1"]
    await queue.exchange(completed("batch-1"), worker="worker-2", slots=0)
    await queue.service.close()
    site.spoil("UPDATE states SET state = CAST(x'ff' AS TEXT) WHERE seq = (SELECT seq FROM jobs WHERE id = 'batch-1')")
    after = site.start()
    view = await batch(after)
    assert (view.ended, view.waiting, view.processing) == ({"completed": 1}, 1, 0)
    await after.service.close()


async def test_a_job_whose_header_can_not_be_decoded_is_counted_in_its_batch(site: Site) -> None:
    site.spoil("UPDATE jobs SET header = x'c1' WHERE id = 'batch-1'")
    queue = site.start()
    assert await run_all(queue) == ["bad", *PLAIN, "batch-2"]
    view = await batch(queue)
    assert (view.status, view.total, view.waiting) == ("completed", 2, 0)
    assert view.ended == {"failed": 1, "completed": 1}
    assert view.errors == {"record_unreadable": 1}
    await queue.service.close()


@pytest.mark.parametrize(
    "statement",
    ["UPDATE batch_states SET body = x'c1'", "UPDATE batches SET spec = x'c1'", "UPDATE batches SET spec = 'x'"],
)
async def test_the_jobs_of_a_batch_that_can_not_be_loaded_fail_and_all_others_run(
    site: Site, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.spoil(statement)
    queue = site.start()
    assert "batches, row 1: " in caplog.text
    assert await run_all(queue) == ["bad", *PLAIN]
    for job_id in ("batch-1", "batch-2"):
        view = await queue.view(job_id)
        assert view.status == "failed"
        assert view.failure is not None
        assert view.failure.kind == "record_unreadable"
    await queue.service.close()


async def test_a_schedule_that_can_not_be_loaded_is_left_out(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.spoil("UPDATE schedules SET spec = x'c1'")
    queue = site.start()
    assert "schedules, row schedule-" in caplog.text
    assert await run_all(queue) == ["bad", *PLAIN, "batch-1", "batch-2"]
    await queue.service.close()


@pytest.mark.parametrize("key", ["CAST(x'ff' AS TEXT)", "'no key'", """CAST(x'5b2261ff225d' AS TEXT)"""])
async def test_a_gate_that_can_not_be_loaded_is_forgotten(
    site: Site, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.spoil(f"INSERT INTO gates (key, body) VALUES ({key}, x'90')")
    queue = site.start()
    assert "gates, row " in caplog.text
    assert await run_all(queue) == ["bad", *PLAIN, "batch-1", "batch-2"]
    await queue.service.close()


@pytest.mark.parametrize(
    "body", [b"\xc1", encode_counters(Counters(next_event=-5)), encode_counters(Counters(completed=[]))]
)
async def test_counters_that_can_not_be_used_are_a_start_error_that_names_the_file(site: Site, body: bytes) -> None:
    site.spoil("UPDATE counters SET body = ?", body)
    with pytest.raises(StartError, match=f"the journal {site.path} is damaged: its counters"):
        site.start()


async def test_a_count_of_jobs_that_is_too_low_gives_no_number_twice(site: Site) -> None:
    def change(counters: Counters) -> None:
        counters.next_seq, counters.next_batch = 2, 0

    site.change_counters(change)
    queue = site.start()
    assert await queue.submit("new") is None
    group = SubmitGroup([submission("new-1", header(batch_id="new"))], batch=BatchSpec("new"))
    assert await queue.service.submit([group]) == [None]
    assert await run_all(queue) == ["bad", *PLAIN, "batch-1", "batch-2", "new", "new-1"]
    assert (await batch(queue, "new")).status == "completed"
    await queue.service.close()


@pytest.mark.parametrize("now", [math.nan, math.inf, 1e300])
async def test_a_clock_that_stood_at_no_time_is_forgotten(
    site: Site, now: float, caplog: pytest.LogCaptureFixture
) -> None:
    site.change_counters(lambda counters: setattr(counters, "clock", replace(counters.clock, now=now)))
    queue = site.start()
    assert "that is no time" in caplog.text
    assert await run_all(queue) == ["bad", *PLAIN, "batch-1", "batch-2"]
    await queue.service.close()
