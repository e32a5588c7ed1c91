"""Rows and pages of the journal are damaged under a queue that runs: all that is sound is forgotten in time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.levels import AIJobPriority
from aiqueue.testing.jobs import completed, failed, group, header, settings, submission
from tests.tools.damaged_pages import alter, break_chain, overwrite, pages_of
from tests.tools.service_harness import ServiceHarness

LONG = b'{"type":"x","text":"' + b"Z" * 100_000 + b'"}'


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[ServiceHarness]:
    """Return a queue whose file can be broken beneath it."""
    made = ServiceHarness(settings(cache_bytes=0), SqliteJournal(tmp_path / "journal.db", durability="off"))
    yield made
    await made.service.close()


def journal_of(queue: ServiceHarness) -> SqliteJournal:
    assert isinstance(queue.journal, SqliteJournal)
    return queue.journal


async def forget(queue: ServiceHarness) -> None:
    """Let a pass of retention run to its end, a long time later."""
    queue.clock.advance(queue.settings.retention.max_age_s + queue.settings.retention.idempotency_s + 100)
    await queue.forget_old()


async def end(queue: ServiceHarness, *ids: str) -> None:
    """Submit jobs, each with a key of its own, and let them end."""
    for job_id in ids:
        await queue.submit(job_id, idempotency_key=f"default:{job_id}")
    assert await queue.claim(len(ids)) == list(ids)
    await queue.exchange(*map(completed, ids), slots=0)


async def test_a_job_that_can_not_be_deleted_keeps_no_commit_from_the_disk_and_is_tried_and_logged_once(
    queue: ServiceHarness, caplog: pytest.LogCaptureFixture
) -> None:
    await queue.service.submit([group(submission("long", header(), LONG))])
    assert await queue.claim() == ["long"]
    await queue.exchange(completed("long"), slots=0)
    await end(queue, "a", "b")
    break_chain(journal_of(queue), b"Z")
    await forget(queue)
    assert await queue.submit("new", level=AIJobPriority.LOW) is None
    views = await queue.service.get_jobs(["a", "long", "b", "new"])
    assert [view and view.status for view in views] == [None, "completed", None, "queued"]
    assert "can't be read or deleted" in caplog.text
    caplog.clear()
    await end(queue, "c")
    await forget(queue)
    assert await queue.service.get_jobs(["c"]) == [None]
    assert caplog.text == ""


@pytest.mark.parametrize("table", ["jobs", "results", "idempotency"])
async def test_a_broken_page_of_what_is_over_keeps_neither_the_rest_from_being_forgotten_nor_new_jobs_out(
    queue: ServiceHarness, table: str
) -> None:
    names = [f"job-{number:03}" + "x" * 100 for number in range(300)]
    for at in range(0, 300, 100):
        await end(queue, *names[at : at + 100])
    _, _last, first, *_ = pages_of(journal_of(queue), table)
    overwrite(journal_of(queue), first, b"\xff" * 16)
    await forget(queue)
    assert await queue.submit("new") is None
    assert journal_of(queue).count_jobs() < 250
    assert journal_of(queue).ended(after=(0.0, 0), before=1e12, limit=1_000) == []


@pytest.mark.parametrize("key", [b"default:B", b"default:\xff"])
async def test_a_key_that_can_not_be_found_by_its_index_is_passed_over_and_logged_once(
    queue: ServiceHarness, key: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await end(queue, "a", "b", "c")
    alter(journal_of(queue), "idempotency", b"default:b", key)
    await forget(queue)
    left = journal_of(queue)._reader.execute("SELECT CAST(key AS BLOB) FROM idempotency NOT INDEXED").fetchall()
    assert left == [(key,)]
    assert caplog.text.count("can't be read or deleted") == 1
    await forget(queue)
    assert caplog.text.count("can't be read or deleted") == 1


async def test_one_kind_of_thing_that_can_not_be_read_at_all_keeps_no_other_from_being_forgotten(
    queue: ServiceHarness, caplog: pytest.LogCaptureFixture
) -> None:
    await end(queue, "a", "b")
    alone = journal_of(queue)
    (root,) = pages_of(alone, "states_by_end")
    overwrite(alone, root, b"\xff" * 16)
    await forget(queue)
    assert "retention failed, and tries again in" in caplog.text
    assert alone.keys(["default:a", "default:b"]) == {}


async def test_a_dead_letter_that_can_not_be_deleted_is_gone_from_their_list(queue: ServiceHarness) -> None:
    await queue.service.submit([group(submission("long", header(max_retries=0), LONG))])
    await queue.claim()
    await queue.exchange(failed("long"), slots=0)
    assert await queue.service.dead_letters.count() == 1
    break_chain(journal_of(queue), b"Z")
    assert await queue.service.dead_letters.delete(["long"]) == ["long"]
    assert await queue.service.dead_letters.count() == 0
    assert (await queue.view("long")).status == "cancelled"
    assert await queue.submit("new") is None
