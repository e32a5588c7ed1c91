"""Submitting: answered means on disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aiqueue.config import PoolConfig, ProviderConfig, Settings
from aiqueue.errors import JournalUnavailable, QueueUnavailable
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.protocol import Refusal
from aiqueue.service.recovery import load_engine, policy_of
from aiqueue.testing.jobs import completed, group, header, settings, submission
from aiqueue.testing.manual_clock import ManualClock
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns, until


async def held(queue: ServiceHarness) -> None:
    """Wait until a commit waits for the disk."""
    assert await asyncio.to_thread(queue.memory.held.wait, 10.0)


async def test_a_submit_is_answered_when_it_is_on_disk_and_not_before(queue: ServiceHarness) -> None:
    queue.memory.hold()
    submit = asyncio.create_task(queue.submit("a"))
    await held(queue)
    await turns()
    assert not submit.done()
    assert queue.memory.jobs(["a"]) == {}
    queue.memory.release()
    assert await submit is None
    assert set(queue.memory.jobs(["a"])) == {"a"}


async def test_submits_that_come_during_a_commit_share_the_next_one(queue: ServiceHarness) -> None:
    queue.service._ticker.close()  # a tick may write what time it is
    queue.memory.hold()
    first = asyncio.create_task(queue.submit("first"))
    await held(queue)
    others = [asyncio.create_task(queue.submit(f"job-{number}")) for number in range(20)]
    await turns()
    queue.memory.release()
    assert await asyncio.gather(first, *others) == [None] * 21
    assert queue.memory.commits == 2


async def test_a_caller_that_goes_away_undoes_nothing(queue: ServiceHarness) -> None:
    queue.memory.hold()
    submit = asyncio.create_task(queue.submit("a", "b"))
    other = asyncio.create_task(queue.submit("c"))
    await held(queue)
    submit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submit
    queue.memory.release()
    assert await other is None
    assert set(queue.memory.jobs(["a", "b", "c"])) == {"a", "b", "c"}
    assert await queue.claim(3) == ["a", "b", "c"]


async def test_a_caller_that_goes_away_before_its_call_began_has_submitted_nothing(queue: ServiceHarness) -> None:
    submit = asyncio.create_task(queue.submit("a"))
    submit.cancel()
    await asyncio.wait([submit])
    assert await queue.service.get_jobs(["a"]) == [None]


# --- the same id again -----------------------------------------------------------------------------------------------


async def test_the_same_job_sent_again_is_the_first_one(queue: ServiceHarness) -> None:
    job = submission("a", header(owner="client-a"), b'{"x":1}')
    again = submission("a", header(owner="client-b"), b'{"x":1}')
    assert await queue.service.submit([group(job)]) == [None]
    assert await queue.service.submit([group(again, maybe_known=True)]) == [None]
    assert await queue.claim(5) == ["a"]
    assert (await queue.view("a")).header.owner == "client-a"


async def test_the_same_job_sent_again_after_its_end_does_not_run_again(queue: ServiceHarness) -> None:
    await queue.submit("a")
    await queue.claim()
    await queue.exchange(completed("a"), slots=0)
    assert await queue.service.submit([group("a", maybe_known=True)]) == [None]
    assert (await queue.view("a")).status == "completed"
    assert queue.service.stats().adapter.queued_jobs == 0


@pytest.mark.parametrize(
    "other",
    [
        submission("a", payload=b'{"x":2}'),
        submission("a", header(max_retries=1)),
        submission("a", header(model="model-b")),
        submission("a", header(tags=("t",))),
    ],
    ids=["payload", "options", "model", "tags"],
)
@pytest.mark.parametrize("ended", [False, True])
async def test_another_body_under_the_same_id_is_refused(queue: ServiceHarness, other: object, ended: bool) -> None:
    await queue.submit("a")
    if ended:
        await queue.claim()
        await queue.exchange(completed("a"), slots=0)
    (refusal,) = await queue.service.submit([group(other, "b", maybe_known=True)])  # type: ignore[arg-type]
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, refusal.job_id) == ("duplicate_job", "a")
    assert await queue.service.get_jobs(["b"]) == [None]


async def test_fifty_callers_with_one_id_make_one_job(queue: ServiceHarness) -> None:
    calls = [queue.service.submit([group("a", maybe_known=True)]) for _ in range(50)]
    assert await asyncio.gather(*calls) == [[None]] * 50
    assert queue.service.stats().adapter.total_jobs == 1


async def test_a_submit_whose_answer_was_lost_is_found_after_a_restart(queue: ServiceHarness) -> None:
    await queue.submit("a", "b")
    after = await queue.crashed()
    assert await after.service.submit([group("a", "b", "c", maybe_known=True)]) == [None]
    assert await after.claim(5) == ["a", "b", "c"]
    assert after.service.stats().adapter.total_jobs == 3
    await after.service.close()


async def test_a_submit_that_never_reached_the_disk_is_made_good_by_sending_it_again(queue: ServiceHarness) -> None:
    queue.memory.hold()
    submit = asyncio.create_task(queue.submit("a"))
    await held(queue)
    after = await queue.crashed()
    with pytest.raises(JournalUnavailable):
        await submit
    assert await after.service.submit([group("a", maybe_known=True)]) == [None]
    assert await after.claim(5) == ["a"]
    await after.service.close()


async def test_groups_of_one_call_are_answered_each_by_itself_and_in_order(queue: ServiceHarness) -> None:
    await queue.submit("taken")
    replies = await queue.service.submit(
        [
            group("a"),
            group(submission("taken", payload=b"other"), maybe_known=True),
            group("taken"),
            group("b", maybe_known=True),
            group("c"),
        ]
    )
    assert [reply and reply.job_id for reply in replies] == [None, "taken", "taken", None, None]
    assert set(await queue.claim(9)) == {"taken", "a", "b", "c"}


# --- a journal that breaks -------------------------------------------------------------------------------------------


async def test_a_journal_that_can_not_be_written_refuses_new_jobs_and_goes_on_by_itself(queue: ServiceHarness) -> None:
    await queue.submit("before")
    queue.memory.break_down()
    waiting = asyncio.create_task(queue.submit("waiting"))
    await until(lambda: queue.memory.failed_commits > 1)
    await turns()
    assert not waiting.done()
    with pytest.raises(JournalUnavailable, match="No space left on device"):
        await queue.submit("refused")
    queue.memory.mend()
    assert await waiting is None
    await turns()
    assert await queue.submit("after") is None
    assert await queue.claim(9) == ["before", "waiting", "after"]
    assert queue.memory.reopened > 0


async def test_a_journal_that_can_not_be_written_still_shows_its_statistics(queue: ServiceHarness) -> None:
    await queue.submit("a")
    queue.memory.break_down()
    waiting = asyncio.create_task(queue.submit("b"))
    await until(lambda: queue.memory.failed_commits > 1)
    assert queue.service.stats().adapter.is_running
    queue.memory.mend()
    await waiting


async def test_no_outcome_is_lost_while_the_journal_can_not_be_written(queue: ServiceHarness) -> None:
    await queue.submit("a")
    await queue.claim()
    queue.memory.break_down()
    report = asyncio.create_task(queue.exchange(completed("a"), slots=0))
    await until(lambda: queue.memory.failed_commits > 1)
    assert not report.done(), "the worker must not forget a result that is not on disk"
    queue.memory.mend()
    await report
    assert (await queue.view("a")).status == "completed"


async def test_a_commit_whose_answer_was_lost_does_not_stop_the_queue(queue: ServiceHarness) -> None:
    queue.memory.fail_next(after_writing=True)
    assert await queue.submit("a") is None
    assert await queue.claim(2) == ["a"]


# --- beginning and end -----------------------------------------------------------------------------------------------


async def test_close_commits_what_is_pending_and_refuses_what_comes_later(queue: ServiceHarness) -> None:
    submit = asyncio.create_task(queue.submit("a"))
    await turns(1)
    await queue.service.close()
    assert await submit is None
    for call in (queue.submit("b"), queue.exchange(), queue.service.get_jobs(["a"]), queue.events()):
        with pytest.raises(QueueUnavailable, match="being stopped"):
            await call


async def test_close_tells_callers_whose_jobs_can_not_be_written(queue: ServiceHarness) -> None:
    queue.memory.break_down()
    submit = asyncio.create_task(queue.submit("a"))
    await until(lambda: queue.memory.failed_commits)
    await queue.service.close()
    with pytest.raises(JournalUnavailable):
        await submit


async def test_jobs_and_counters_survive_a_restart_on_a_real_file(tmp_path: Path) -> None:
    first = ServiceHarness(journal=SqliteJournal(tmp_path / "journal.db"))
    await first.submit("a", "b", "c")
    await first.claim(2)
    await first.exchange(completed("a"), slots=0)
    await first.service.close()
    second = ServiceHarness(journal=SqliteJournal(tmp_path / "journal.db"))
    shown = second.service.stats().adapter
    assert (shown.total_jobs, shown.completed_jobs, shown.processing_jobs, shown.queued_jobs) == (3, 1, 1, 1)
    assert await second.claim(2, worker="worker-2") == ["c"]
    assert (await second.view("a")).status == "completed"
    await second.service.close()


async def test_the_welcome_says_what_a_client_must_know(queue: ServiceHarness) -> None:
    await queue.submit("a")
    welcome = queue.service.welcome()
    assert welcome.last_event == 1
    assert [(entry.name, entry.kind) for entry in welcome.providers] == [("sim", "simulated")]
    assert set(welcome.providers[0].job_types) == {"chat_completion", "text_completion", "embedding"}
    assert (welcome.max_payload_bytes, welcome.sla_ms) == (4 * 2**20, (3_000, 10_000, 30_000, 60_000))


def test_the_policy_is_what_the_settings_say() -> None:
    config = Settings(
        providers={
            "a": ProviderConfig(kind="openai"),
            "b": ProviderConfig(kind="openai", base_url="http://127.0.0.1:1", credential="B_KEY"),
            "c": ProviderConfig(kind="simulated"),
        },
        pools={"p": PoolConfig(providers=("a", "b"))},
    )
    policy = policy_of(config)
    assert {name: (route.pool, route.credential) for name, route in policy.routes.items()} == {
        "a": ("p", "OPENAI_API_KEY"),
        "b": ("p", "B_KEY"),
        "c": ("", ""),
    }
    assert (policy.lease_s, policy.retry.max_crashes, policy.retry.cap_s) == (90.0, 3, 30.0)


async def test_an_engine_loaded_before_gives_the_same_queue(queue: ServiceHarness) -> None:
    await queue.submit("a")
    engine = load_engine(settings(), queue.journal, ManualClock())
    assert engine.ready("pool", now=0.0) == 1
