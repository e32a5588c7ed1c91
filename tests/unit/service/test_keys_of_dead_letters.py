"""The key of a list whose jobs are dead letters that somebody deletes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

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
