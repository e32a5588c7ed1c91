"""A bit is flipped somewhere in the database of a killed queue: it starts and shows each job, or says what is wrong."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import given, settings

from aiqueue.errors import StartError
from aiqueue.journal.head import head_path
from aiqueue.protocol import BatchSpec, SubmitGroup
from aiqueue.testing.jobs import completed, failed, header, submission
from aiqueue.views import encode_json, readable_info
from tests.tools.killed_journal import open_unsealed, settings_at
from tests.tools.service_harness import ServiceHarness

_PAGE = 8_192
IDS = ("done", "retry", "runs", "waits", "batch-1", "batch-2")


async def fill(path: Path) -> None:
    queue = ServiceHarness(settings_at(path), open_unsealed(path))
    await queue.submit(*IDS[:4])
    assert await queue.claim(3) == ["done", "retry", "runs"]
    await queue.exchange(completed("done"), failed("retry"), slots=0)
    batch = [submission(job_id, header(batch_id="batch")) for job_id in IDS[4:]]
    await queue.service.submit([SubmitGroup(batch, batch=BatchSpec("batch"))])
    await queue.service.close()


@cache
def killed() -> tuple[bytes, bytes, list[int]]:
    """Return the files that a killed queue left, and the places of the database that are in use."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        asyncio.run(fill(path))
        content = path.read_bytes()
        with closing(sqlite3.connect(path)) as connection:
            (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'jobs_by_id'").fetchone()
        left_out = (0, page - 1)  # the schema has its own test, and nothing tells that an index is wrong
        used = [at for at, byte in enumerate(content) if byte and at // _PAGE not in left_out]
        return content, head_path(path).read_bytes(), used


def started(path: Path) -> tuple[str, ServiceHarness | None]:
    """Return why the queue did not start, or the queue."""
    journal = None
    try:
        journal = open_unsealed(path)
        return "", ServiceHarness(settings_at(path), journal)
    except StartError as error:
        if journal is not None:
            journal.close()
        return str(error), None


async def start_and_show(path: Path) -> None:
    """Start the queue and look up its jobs; what it can't start from is a StartError that names the file."""
    refusal, queue = started(path)
    if queue is None:
        assert str(path) in refusal
        return
    views = [view for view in await queue.service.get_jobs(IDS) if view is not None]
    assert len(views) >= len(IDS) - 1  # the bit may have made another id of one
    for view in views:
        encode_json(readable_info(view))
    lost = {view.id for view in views if view.status in ("failed", "dead_letter")}
    assert len(lost) <= 1 or lost == {"batch-1", "batch-2"}
    await queue.service.close()


@settings(max_examples=60)
@given(st.data())
def test_a_bit_flipped_anywhere_costs_one_row_or_is_a_start_error_that_names_the_file(data: st.DataObject) -> None:
    content, head, used = killed()
    at, bit = data.draw(st.sampled_from(used)), data.draw(st.integers(0, 7))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        head_path(path).write_bytes(head)
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :])
        asyncio.run(start_and_show(path))
