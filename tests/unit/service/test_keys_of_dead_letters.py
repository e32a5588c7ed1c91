"""The key of a list whose jobs are dead letters that somebody deletes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from aiqueue.engine.effects import Effects, Rows
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.protocol import SubmitReply
from aiqueue.testing.jobs import completed, failed, group, header, submission
from tests.tools.service_harness import ServiceHarness


@pytest.fixture(params=["memory", "sqlite"])
async def queue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ServiceHarness]:
    journal = SqliteJournal(tmp_path / "queue.db") if request.param == "sqlite" else None
    made = ServiceHarness(journal=journal)
    yield made
    await made.service.close()


async def submit(queue: ServiceHarness, *ids: str, key: str = "scope:list") -> SubmitReply:
    """Submit a list under a key, which its first job carries."""
    plain = replace(header(), max_retries=0)
    first = submission(ids[0], replace(plain, idempotency_key=key))
    return await queue.service.submit_and_linger([group(first, *(submission(name, plain) for name in ids[1:]))], 0.0)


async def dead_letters(queue: ServiceHarness, *ids: str, key: str = "scope:list") -> None:
    await submit(queue, *ids, key=key)
    await queue.exchange(*map(failed, await queue.claim(len(ids))), slots=0)


@pytest.mark.parametrize("parts", [[["a", "b", "c"]], [["a"], ["b", "c"]], [["c"], ["b"], ["a"]], [["b"], ["a", "c"]]])
async def test_a_list_whose_dead_letters_are_all_deleted_can_be_sent_again(
    queue: ServiceHarness, parts: Sequence[list[str]]
) -> None:
    await dead_letters(queue, "a", "b", "c")
    for part in parts:
        assert (await submit(queue, "x", "y", "z")).known == {0: "a"}
        assert await queue.service.dead_letters.delete(part) == part
    reply = await submit(queue, "d", "e", "f")
    assert (reply.groups, reply.known) == ([None], {})
    assert list(queue.service._engine.core.live) == ["d", "e", "f"]
    assert (await submit(queue, "x", "y", "z")).known == {0: "d"}, "the key is used again"


async def test_the_key_of_a_list_stays_while_one_of_its_jobs_is_kept(queue: ServiceHarness) -> None:
    await submit(queue, "a", "b")
    await queue.claim(2)
    await queue.exchange(failed("a"), completed("b"), slots=0)
    assert await queue.service.dead_letters.delete(["a"]) == ["a"]
    assert (await submit(queue, "c", "d")).known == {0: "a"}


async def test_two_deletes_at_once_of_a_lists_last_jobs_free_its_key(queue: ServiceHarness) -> None:
    await dead_letters(queue, "a", "b")
    delete = queue.service.dead_letters.delete
    assert await asyncio.gather(delete(["a"]), delete(["b"])) == [["a"], ["b"]]
    assert (await submit(queue, "c", "d")).known == {}


async def test_the_key_of_another_list_stays(queue: ServiceHarness) -> None:
    await submit(queue, "a", "b", key="scope:first")
    await submit(queue, "c", "d", key="scope:second")
    claimed = await queue.claim(4)  # at once: after some failures the provider's gate closes
    await queue.exchange(*map(failed, claimed), slots=0)
    assert await queue.service.dead_letters.delete(["b", "c", "d"]) == ["b", "c", "d"]
    assert (await submit(queue, "e", "f", key="scope:first")).known == {0: "a"}
    assert (await submit(queue, "e", "f", key="scope:second")).known == {}


async def forget(queue: ServiceHarness, *ids: str) -> None:
    """Delete jobs as retention does."""
    seqs = [job.seq for job in queue.journal.jobs(ids).values()] or [10**6]
    await queue.service._commits.append(Effects(rows=Rows(deletes=seqs)))


async def test_the_key_of_a_list_stays_when_retention_has_taken_a_job_that_completed(queue: ServiceHarness) -> None:
    await submit(queue, "a", "b")
    await queue.claim(2)
    await queue.exchange(failed("a"), completed("b"), slots=0)
    await forget(queue, "b")
    assert await queue.service.dead_letters.delete(["a"]) == ["a"]
    assert (await submit(queue, "c", "d")).known == {0: "a"}, "what completed is not run again"
    assert not queue.service._engine.core.live


async def test_the_key_of_a_list_is_free_when_retention_has_taken_dead_letters_alone(queue: ServiceHarness) -> None:
    await dead_letters(queue, "a", "b", "c")
    await forget(queue, "a", "c")
    assert (await submit(queue, "x", "y", "z")).known == {0: "a"}
    assert await queue.service.dead_letters.delete(["b"]) == ["b"]
    assert (await submit(queue, "d", "e", "f")).known == {}


async def test_a_delete_is_answered_while_retention_deletes_job_after_job(queue: ServiceHarness) -> None:
    await dead_letters(queue, "a", "b")
    delete = asyncio.create_task(queue.service.dead_letters.delete(["a"]))
    for _ in range(200):
        await forget(queue, "gone long ago")
    assert delete.done()
    assert await delete == ["a"]


async def test_a_key_that_can_not_be_read_keeps_no_dead_letter_from_its_deletion(tmp_path: Path) -> None:
    queue = ServiceHarness(journal=SqliteJournal(tmp_path / "queue.db"))
    await submit(queue, "a", key="scope:one")
    await submit(queue, "b", key="scope:two")
    await submit(queue, "c", "d", key="scope:list")
    await queue.exchange(*map(failed, await queue.claim(4)), slots=0)
    with closing(sqlite3.connect(tmp_path / "queue.db")) as database:
        database.execute("UPDATE idempotency SET job_id = CAST(x'ff' AS TEXT) WHERE key IN ('scope:one', 'scope:list')")
        database.commit()
    assert await queue.service.dead_letters.delete([*"abcd"]) == [*"abcd"]
    assert (await submit(queue, "e", key="scope:two")).known == {}, "the others' keys are free"
    await queue.service.close()
