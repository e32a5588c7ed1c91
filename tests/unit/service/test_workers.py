"""Workers and the service: long polls, claims, outcomes, time."""

from __future__ import annotations

import asyncio

import pytest

from aiqueue.service import ticking
from aiqueue.testing.jobs import cancelled, completed, failed, group, settings, submission
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns, until


async def test_a_claim_is_answered_when_it_is_on_disk_and_not_before(queue: ServiceHarness) -> None:
    await queue.submit("a")
    queue.memory.hold()
    poll = asyncio.create_task(queue.exchange())
    assert await asyncio.to_thread(queue.memory.held.wait, 10.0)
    await turns()
    assert not poll.done()
    assert queue.memory.jobs(["a"])["a"].state == ""
    queue.memory.release()
    (claim,) = (await poll).claims
    assert (claim.job_id, claim.attempt, claim.payload) == ("a", 1, b'{"type":"x"}')
    assert queue.memory.jobs(["a"])["a"].state == "processing"


async def test_an_outcome_is_answered_when_it_is_on_disk_even_if_a_newer_poll_comes(queue: ServiceHarness) -> None:
    await queue.submit("a")
    await queue.claim()
    queue.memory.hold()
    report = asyncio.create_task(queue.exchange(completed("a")))
    assert await asyncio.to_thread(queue.memory.held.wait, 10.0)
    newer = asyncio.create_task(queue.exchange())
    await turns()
    assert not report.done(), "the worker forgets a result once this is answered"
    queue.memory.release()
    await report
    assert queue.memory.jobs(["a"])["a"].state == "completed"
    newer.cancel()


async def test_a_waiting_worker_gets_a_new_job_in_the_commit_that_accepts_it(queue: ServiceHarness) -> None:
    queue.service._ticker.close()  # a tick may write what time it is
    poll = await queue.park()
    await queue.submit("a")
    (claim,) = (await poll).claims
    assert claim.job_id == "a"
    assert queue.memory.commits == 1


async def test_waiting_workers_share_what_comes(queue: ServiceHarness) -> None:
    polls = [await queue.park(worker=f"worker-{number}", slots=4) for number in range(3)]
    await queue.submit(*(f"job-{number}" for number in range(6)))
    replies = await asyncio.gather(*polls)
    assert [len(reply.claims) for reply in replies] == [2, 2, 2]


async def test_waiting_workers_are_given_the_jobs_of_one_that_crashed_group_by_group(queue: ServiceHarness) -> None:
    await queue.submit("a", "b", "c", "d")
    await queue.exchange(slots=4)
    polls = [await queue.park(worker=f"worker-{number}", slots=4) for number in (2, 3)]
    await queue.service.lose_worker("worker-1", "killed", crashed=True)
    await until(lambda: any(poll.done() for poll in polls))
    (done,) = [poll for poll in polls if poll.done()]
    claims = (await done).claims
    assert [(claim.job_id, claim.attempt) for claim in claims] == [("a", 2), ("b", 2)]
    number = 2 + polls.index(done)
    more = await queue.exchange(*(completed(c.job_id, 2) for c in claims), worker=f"worker-{number}", slots=4)
    assert [claim.job_id for claim in more.claims] == ["c", "d"]
    assert sum(poll.done() for poll in polls) == 1, "the other one waits for other work"
    for poll in polls:
        poll.cancel()


async def test_what_a_worker_with_few_slots_leaves_goes_to_the_others(queue: ServiceHarness) -> None:
    big = await queue.park(worker="big", slots=10)
    small = await queue.park(worker="small", slots=1)
    await queue.submit(*(f"job-{number}" for number in range(8)))
    assert (len((await small).claims), len((await big).claims)) == (1, 7)


async def test_a_job_for_another_pool_wakes_nobody(queue: ServiceHarness) -> None:
    poll = await queue.park()
    await queue.submit("a", provider="elsewhere")
    await turns()
    assert not poll.done()
    poll.cancel()


async def test_a_new_poll_sends_an_older_one_home(queue: ServiceHarness) -> None:
    older = await queue.park()
    newer = await queue.park()
    reply = await older
    assert (reply.claims, reply.cancels) == ([], [])
    await queue.submit("a")
    assert [claim.job_id for claim in (await newer).claims] == ["a"]


async def test_a_poll_without_work_comes_back_after_the_heartbeat() -> None:
    queue = ServiceHarness(settings(heartbeat_s=0.001))
    assert (await queue.exchange()).claims == []
    assert not list(queue.service._workers.parked)
    await queue.service.close()


async def test_a_poll_that_was_cancelled_leaves_no_trace_and_loses_no_job(queue: ServiceHarness) -> None:
    poll = await queue.park()
    poll.cancel()
    await asyncio.wait([poll])
    await queue.submit("a")
    assert await queue.claim() == ["a"]


async def test_a_draining_workers_outcome_is_answered_at_once(queue: ServiceHarness) -> None:
    await queue.submit("a", "b")
    await queue.claim(1)
    reply = await asyncio.wait_for(queue.exchange(completed("a"), slots=0), 10.0)
    assert reply.claims == []


async def test_a_draining_worker_that_has_nothing_to_say_waits_for_cancels(queue: ServiceHarness) -> None:
    await queue.submit("a")
    await queue.claim(1)
    poll = await queue.park(slots=0)
    await queue.service.cancel(["a"])
    assert (await poll).cancels == [("a", 1)]


async def test_a_stale_outcome_is_counted_and_changes_nothing(queue: ServiceHarness) -> None:
    await queue.submit("a")
    await queue.claim()
    assert await queue.service.lose_worker("worker-1", "killed", crashed=True) == 1
    await queue.exchange(completed("a"), slots=0)
    assert (await queue.view("a")).status == "queued"
    assert queue.service.stats().adapter.stale_outcomes == 1


async def test_a_dead_workers_jobs_go_to_a_waiting_one_at_once(queue: ServiceHarness) -> None:
    await queue.submit("a")
    await queue.claim(worker="dead")
    poll = await queue.park(worker="alive")
    assert await queue.service.lose_worker("dead", "killed", crashed=True) == 1
    (claim,) = (await poll).claims
    assert (claim.job_id, claim.attempt) == ("a", 2)
    assert (await queue.view("a")).crashes == 1


async def test_a_job_handed_back_goes_to_a_waiting_worker(queue: ServiceHarness) -> None:
    await queue.submit("a")
    await queue.claim(worker="leaving")
    poll = await queue.park(worker="staying")
    await queue.exchange(cancelled("a"), worker="leaving", slots=0)
    (claim,) = (await poll).claims
    assert (claim.job_id, claim.attempt) == ("a", 2)


async def test_workers_that_outlive_the_queue_report_under_the_same_attempt(queue: ServiceHarness) -> None:
    await queue.submit("a", "b")
    await queue.claim(2)
    after = await queue.crashed()
    await after.exchange(completed("a"), running=[("b", 1)], slots=0)
    assert (await after.view("a")).status == "completed"
    assert ((await after.view("b")).status, (await after.view("b")).attempt) == ("processing", 1)
    await after.service.close()


async def test_a_claim_that_never_arrived_is_given_again_with_its_payload(queue: ServiceHarness) -> None:
    await queue.submit("a")
    await queue.claim()
    (claim,) = (await queue.exchange(running=[])).claims
    assert (claim.job_id, claim.attempt, claim.payload) == ("a", 1, b'{"type":"x"}')


# --- payloads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache_bytes", [0, 10, 2**20])
async def test_payloads_are_complete_whatever_fits_in_memory(cache_bytes: int) -> None:
    queue = ServiceHarness(settings(cache_bytes=cache_bytes))
    jobs = [submission(f"job-{number}", payload=b"x" * number) for number in range(12)]
    await queue.service.submit([group(*jobs)])
    claims = (await queue.exchange(slots=12)).claims
    assert [claim.payload for claim in claims] == [job.payload for job in jobs]
    await queue.service.close()


async def test_a_retried_job_has_its_payload_again(queue: ServiceHarness) -> None:
    await queue.submit("a")
    await queue.claim()
    await queue.service.lose_worker("worker-1", "killed", crashed=True)
    (claim,) = (await queue.exchange(worker="worker-2")).claims
    assert claim.payload == b'{"type":"x"}'


async def test_a_late_call_of_a_dead_worker_is_given_nothing(queue: ServiceHarness) -> None:
    await queue.submit("a", "b")
    await queue.claim()
    parked = asyncio.create_task(queue.exchange(slots=0))
    await turns()
    await queue.service.lose_worker("worker-1", "its node died", crashed=False)
    assert (await parked).claims == []
    late = await queue.exchange(completed("a"))  # it was on its way when the worker died
    assert late.claims == []
    assert [job.job_id for job in (await queue.exchange(worker="worker-2")).claims] == ["a", "b"]


# --- time ------------------------------------------------------------------------------------------------------------


async def test_a_retry_without_a_wait_comes_back_by_itself() -> None:
    queue = ServiceHarness(settings(retry_s=0.0))
    await queue.submit("a")
    await queue.claim()
    (claim,) = (await queue.exchange(failed("a"))).claims
    assert (claim.job_id, claim.attempt) == ("a", 2)
    await queue.service.close()


async def test_a_retry_comes_back_when_its_time_has_come_and_not_before(queue: ServiceHarness) -> None:
    await queue.submit("a")
    await queue.claim()
    poll = await queue.park(failed("a"))
    queue.clock.advance(0.999)
    await queue.service.lose_worker("nobody", "any command looks at the clock", crashed=True)
    await turns(20)
    assert not poll.done()
    queue.clock.advance(0.001)
    await queue.service.lose_worker("nobody", "any command looks at the clock", crashed=True)
    (claim,) = (await poll).claims
    assert (claim.job_id, claim.attempt) == ("a", 2)


async def test_a_silent_worker_loses_its_jobs(queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticking, "_TICK_S", 0.001)
    queue = ServiceHarness()
    await queue.submit("a")
    await queue.claim(worker="silent")
    await _let_pass(queue, 89)
    poll = await queue.park(worker="alive")
    assert not poll.done()
    await _let_pass(queue, 1)
    (claim,) = (await poll).claims
    assert (claim.job_id, claim.attempt) == ("a", 2)
    await queue.service.close()


async def test_leases_outlast_a_pause_of_the_queue_itself(
    queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticking, "_TICK_S", 0.001)
    queue = ServiceHarness()
    await queue.submit("a")
    await queue.claim(worker="alive")
    queue.clock.advance(3_600.0)  # suspended: the worker could not be heard, and is not taken for lost
    await until(lambda: queue.service._ticker.ticked_at == queue.clock.now())
    assert queue.service._engine.core.live["a"].attempt == 1
    assert queue.service.stats().adapter.processing_jobs == 1
    await queue.service.close()


async def _let_pass(queue: ServiceHarness, seconds: int) -> None:
    """Let time pass as the service sees it: a tick a second."""
    for _ in range(seconds):
        queue.clock.advance(1.0)
        await until(lambda: queue.service._ticker.ticked_at == queue.clock.now())


async def test_after_a_crash_a_retry_still_waits_for_its_time(queue: ServiceHarness) -> None:
    await queue.submit("a")
    await queue.claim()
    await queue.exchange(failed("a"), slots=0)
    after = await queue.crashed()
    poll = await after.park()
    after.clock.advance(1.0)
    await after.service.lose_worker("nobody", "any command looks at the clock", crashed=True)
    await until(poll.done)
    assert [claim.attempt for claim in poll.result().claims] == [2]
    await after.service.close()
