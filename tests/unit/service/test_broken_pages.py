"""Pages of a real journal that were overwritten: jobs whose rows were in them fail, and all others run."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.testing.in_process import InProcessTransport, worker_beside
from aiqueue.testing.jobs import chat, group, header, settings, submission
from aiqueue.worker import loop as loop_module
from tests.tools.fake_provider import FakeProvider
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import until

_PAGE = 8_192


def break_page(journal: SqliteJournal, marker: bytes) -> None:
    """Overwrite the head of the page that has a text, as a torn write does."""
    journal._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    content = journal.path.read_bytes()
    assert content.count(marker) == 1
    with journal.path.open("r+b") as file:
        file.seek(content.index(marker) // _PAGE * _PAGE)
        file.write(b"\xff" * 16)


async def test_jobs_on_a_broken_page_fail_and_all_others_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "_RETRY_S", 0.0)
    journal = SqliteJournal(tmp_path / "journal.db")
    queue = ServiceHarness(settings(retry_s=0.0, cache_bytes=0), journal)
    names = [f"job-{number}" for number in range(20)]
    once = replace(header(), max_retries=0)
    for name in names:  # some fill a page
        body = msgspec.json.encode(chat(f"marker of {name}; " + "x" * 6_000))
        await queue.service.submit([group(submission(name, once, body))])
    break_page(journal, b"marker of job-7;")
    provider, live = FakeProvider(), queue.service._engine.core.live
    async with worker_beside(InProcessTransport(queue.service), {"sim": provider}, slots=8):
        await until(lambda: not live)
    ran = {call.job_id for call in provider.calls}
    assert len(provider.calls) == len(ran)
    assert "job-7" not in ran
    assert len(ran) >= 18, "one page has two of these jobs at most"
    views = await queue.service.get_jobs(names)
    assert [view and view.id for view in views] == names
    for name, view in zip(names, views, strict=True):
        assert view is not None
        kind = view.failure.kind if view.failure else ""
        expected = ("completed", "") if name in ran else ("dead_letter", "record_unreadable")
        assert (view.status, kind) == expected
    await queue.service.close()
