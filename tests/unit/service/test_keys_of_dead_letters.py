"""The key of a list whose jobs are dead letters that somebody deletes."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from aiqueue.engine.effects import Effects, Rows
from aiqueue.journal.base import StoredJob
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.protocol import BatchSpec, DeadLettersCall, SubmitGroup, SubmitReply
from aiqueue.service import successors
from aiqueue.service.successors import Repeat
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


async def redrive(queue: ServiceHarness, job_id: str, successor: str, *, batch_id: str = "") -> None:
    """Submit a job in the place of a dead letter: that of a step of a chain is in a batch of its own."""
    key = f"scope:redrive:{job_id}"
    again = replace(header(), max_retries=0, redriven_from=job_id, idempotency_key=key, batch_id=batch_id)
    batch = BatchSpec(batch_id, kind="fan_in") if batch_id else None
    assert await queue.service.submit([SubmitGroup([submission(successor, again)], batch=batch)]) == [None]


async def end(queue: ServiceHarness, job_id: str, *, well: bool) -> None:
    """Let a worker run the only job there is."""
    assert await queue.claim(4) == [job_id]
    await queue.exchange(completed(job_id) if well else failed(job_id), slots=0)


@pytest.mark.parametrize("ids", [["a"], ["a", "b"]])
@pytest.mark.parametrize("when", ["waits", "runs", "completed", "repeated itself"])
async def test_the_key_of_a_deleted_dead_letter_stays_while_its_redrive_lives_or_completed(
    queue: ServiceHarness, ids: list[str], when: str
) -> None:
    await dead_letters(queue, *ids)
    await redrive(queue, ids[-1], "again")
    if when == "runs":
        assert await queue.claim() == ["again"]
    elif when != "waits":
        await end(queue, "again", well=when == "completed")
    if when == "repeated itself":
        await redrive(queue, "again", "once more")
    before = set(queue.service._engine.core.live)
    assert await queue.service.dead_letters.delete(ids) == ids
    reply = await submit(queue, *"xyz"[: len(ids)])
    assert (reply.groups, reply.known) == ([None], {0: "a"})
    assert set(queue.service._engine.core.live) == before
    view = await queue.view(ids[-1])
    assert (view.status, view.successor) == ("failed", "again"), "it says where its work went on"
    reply = await queue.service.dead_letters.find(DeadLettersCall())
    assert {each.id for each in reply.jobs} <= {"again"}, "it is no dead letter any more"


async def test_the_key_of_a_deleted_dead_letter_stays_after_a_restart_while_its_redrive_lives() -> None:
    queue = ServiceHarness()
    await dead_letters(queue, "a")
    await redrive(queue, "a", "again")
    assert await queue.service.dead_letters.delete(["a"]) == ["a"]
    queue = await queue.crashed()
    assert (await submit(queue, "x")).known == {0: "a"}
    await end(queue, "again", well=True)
    assert (await submit(queue, "x")).known == {0: "a"}
    await queue.service.close()


async def test_the_id_of_a_deleted_dead_letter_is_not_new_while_its_redrive_lives(queue: ServiceHarness) -> None:
    await submit(queue, "a")
    await queue.exchange(*map(failed, await queue.claim()), slots=0)
    await redrive(queue, "a", "again")
    assert await queue.service.dead_letters.delete(["a"]) == ["a"]
    again = submission("a", replace(header(), max_retries=0, idempotency_key="scope:list"))
    assert await queue.service.submit([group(again, maybe_known=True)]) == [None]
    assert [*queue.service._engine.core.live] == ["again"]


@pytest.mark.parametrize("ids", [["a"], ["a", "b"]])
async def test_the_key_of_a_deleted_dead_letter_is_free_when_its_redrive_failed_too(
    queue: ServiceHarness, ids: list[str]
) -> None:
    await dead_letters(queue, *ids)
    await redrive(queue, ids[-1], "again")
    await end(queue, "again", well=False)
    assert await queue.service.dead_letters.delete(ids) == ids
    assert (await submit(queue, *"xyz"[: len(ids)])).known == {}


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


async def chain(queue: ServiceHarness, *ids: str, of_steps: bool = False) -> None:
    """Let a job with the key fail, and then each redrive of the one before."""
    await dead_letters(queue, ids[0])
    for before, again in itertools.pairwise(ids):
        await redrive(queue, before, again, batch_id=f"fan-in {again}" if of_steps else "")
        await end(queue, again, well=False)


@pytest.mark.parametrize("gone", [["b"], ["c"], ["b", "c"], ["c", "b"]])
@pytest.mark.parametrize("needed", ["", "b", "c"])
async def test_the_key_of_a_dead_letter_stays_when_a_redrive_between_it_and_the_completed_one_was_deleted(
    queue: ServiceHarness, gone: list[str], needed: str
) -> None:
    await chain(queue, *"abcd")
    queue.service.dead_letters._is_needed = lambda job_id: job_id == needed
    for job_id in gone:
        assert await queue.service.dead_letters.delete([job_id]) == [job_id]
    assert {(await queue.view(job_id)).status for job_id in gone} == {"failed"}
    await redrive(queue, "d", "e")
    await end(queue, "e", well=True)
    assert await queue.service.dead_letters.delete(["a"]) == ["a"]
    assert (await submit(queue, "x")).known == {0: "a"}


async def test_redrives_deleted_in_one_call_lead_on_to_the_last_one(queue: ServiceHarness) -> None:
    await chain(queue, *"abcd")
    assert await queue.service.dead_letters.delete(["b", "c"]) == ["b", "c"]
    assert [(await queue.view(job_id)).successor for job_id in "abc"] == ["b", "c", "d"]
    assert await queue.service.dead_letters.delete(["a", "d"]) == ["a", "d"]
    assert (await submit(queue, "x")).known == {}


@pytest.mark.parametrize("gone", [["b"], ["c", "b"], ["b", "c"], ["bc"], ["cb"]])
async def test_the_key_of_a_deleted_dead_letter_is_free_when_its_redrives_were_deleted_too(
    queue: ServiceHarness, gone: list[str]
) -> None:
    await chain(queue, *"abc"[: len("".join(gone)) + 1])
    for ids in gone:
        await queue.service.dead_letters.delete([*ids])
    assert await queue.service.dead_letters.delete(["a"]) == ["a"]
    assert (await submit(queue, "x")).known == {}


@pytest.mark.parametrize(
    "calls", [["bcd"], ["b", "c", "d"], ["d", "c", "b"], ["c", "b", "d"], ["bc", "d"], ["c", "bd"]]
)
@pytest.mark.parametrize("of_steps", [False, True])
async def test_a_dead_letter_whose_redrives_were_deleted_names_none_in_whatever_order_they_were(
    queue: ServiceHarness, calls: list[str], of_steps: bool
) -> None:
    await chain(queue, *"abcd", of_steps=of_steps)
    for ids in calls:
        assert await queue.service.dead_letters.delete([*ids]) == [*ids]
    view = await queue.view("a")
    assert (view.status, view.successor) == ("dead_letter", "")
    kept = [job for job in await queue.service.get_jobs([*"bcd"]) if job]
    assert {(job.status, job.successor) for job in kept} <= {("failed", "")}
    await redrive(queue, "a", "e")
    assert (await queue.view("a")).successor == "e"


@pytest.mark.parametrize("of_steps", [False, True])
async def test_a_dead_letter_whose_redrive_was_deleted_can_be_redriven_again(
    queue: ServiceHarness, of_steps: bool
) -> None:
    await chain(queue, "a", "b", of_steps=of_steps)
    await queue.service.dead_letters.delete(["b"])
    await redrive(queue, "a", "c", batch_id="fan-in c" if of_steps else "")
    assert (await queue.view("a")).successor == "c"


async def test_a_dead_letter_with_more_redrives_than_are_followed_is_deleted_with_all_of_them(
    queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(successors, "MOST_STEPS", 2)
    await chain(queue, *"abcd")
    assert await queue.service.dead_letters.delete([*"abcd"]) == [*"abcd"]
    assert queue.journal.count_dead_letters() == 0
    kept = [job for job in await queue.service.get_jobs([*"abcd"]) if job]
    assert {job.status for job in kept} == {"failed"}
    assert {job.successor for job in kept} - {""} <= {job.id for job in kept}, "what one names is kept too"


async def test_the_key_of_a_dead_letter_stays_when_retention_has_taken_its_redrive(queue: ServiceHarness) -> None:
    """Retention takes a redrive first if a live job needs what it repeats. How it ended is not known any more."""
    await dead_letters(queue, "a")
    await redrive(queue, "a", "b")
    await end(queue, "b", well=True)
    await forget(queue, "b")
    assert await queue.service.dead_letters.delete(["a"]) == ["a"]
    assert (await submit(queue, "x")).known == {0: "a"}


async def test_a_redrive_is_deleted_while_retention_takes_what_it_repeats(queue: ServiceHarness) -> None:
    await chain(queue, "a", "b")
    predecessors = queue.service.dead_letters._successors.predecessors

    async def then_forget(repeats: Mapping[str, Repeat]) -> tuple[list[StoredJob], list[StoredJob]]:
        found = await predecessors(repeats)
        await forget(queue, *(job.id for jobs in found for job in jobs))
        return found

    queue.service.dead_letters._successors.predecessors = then_forget  # type: ignore[method-assign]
    assert await queue.service.dead_letters.delete(["b"]) == ["b"]
    assert not queue.journal.jobs(["a", "b"])
    assert queue.journal.count_dead_letters() == 0
