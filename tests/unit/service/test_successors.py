"""What needs a job that failed goes on with what runs in its place: a retry within the batch, or a redrive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.ids import id_of, next_try_of
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.protocol import BatchSpec, Need, SubmitGroup
from aiqueue.service import successors
from aiqueue.testing.in_process import InProcessTransport
from aiqueue.testing.jobs import completed, failed, final, group, header, submission
from tests.tools.service_harness import ServiceHarness

_TRY = id_of("run", "row", "0")  # that ``map`` makes


class Steps:
    """A chain of jobs ``a``, ``b``, …, each of which needs the one before it; a worker that does as told."""

    def __init__(self, queue: ServiceHarness) -> None:
        self.queue = queue
        self.client = AsyncAIQueueAdapter(InProcessTransport(queue.service))

    async def submit(self, names: str) -> None:
        """Submit the chain."""
        one = header(batch_id="chain", max_retries=0)
        jobs = []
        for at, name in enumerate(names):
            needs = (Need(names[at - 1], ("previous",)),) if at else ()
            jobs.append(submission(name, replace(one, index=at, needs=needs, on_error="fail")))
        spec = BatchSpec("chain", kind="chain")
        assert await self.queue.service.submit([SubmitGroup(jobs, batch=spec)]) == [None]

    async def work(self, *, bad: tuple[str, ...] = ()) -> list[str]:
        """Run what is ready until nothing is; return the jobs that were run. A bad one is out of attempts."""
        done: list[str] = []
        while self.queue.ready():
            claimed = await self.queue.claim(4)
            done += claimed
            outcomes = [failed(name) if name in bad else completed(name, text=name) for name in claimed]
            await self.queue.exchange(*outcomes, slots=0)
        return done

    async def redrive(self, job_id: str) -> str:
        """Return the job that repeats a dead letter."""
        await self.client.start()
        (successor,) = await self.client.dead_letters.redrive([job_id])
        await self.client.stop()
        return successor

    async def retry(self) -> int:
        """Retry the chain; return how many jobs that starts again."""
        return (await self.queue.service.batches.call(BatchCall("chain", "retry_failed"))).changed

    async def ended(self) -> dict[str, int]:
        """Return how many jobs of the chain ended in which state."""
        return (await self.queue.service.batches.call(BatchCall("chain"))).ended


@pytest.fixture(params=["memory", "sqlite"])
async def steps(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Steps]:
    journal = SqliteJournal(tmp_path / "queue.db") if request.param == "sqlite" else None
    queue = ServiceHarness(journal=journal)
    yield Steps(queue)
    await queue.service.close()


async def test_a_chain_whose_dead_step_was_redriven_and_completed_goes_on_from_there(steps: Steps) -> None:
    await steps.submit("abc")
    await steps.work(bad=("a",))
    successor = await steps.redrive("a")
    assert await steps.work() == [successor]
    assert await steps.retry() == 2
    assert len(await steps.work()) == 2
    assert await steps.ended() == {"dead_letter": 1, "completed": 2}


async def test_a_chain_whose_redriven_step_still_waits_goes_on_when_that_completes(steps: Steps) -> None:
    await steps.submit("ab")
    await steps.work(bad=("a",))
    successor = await steps.redrive("a")
    assert await steps.retry() == 1
    first, *_ = await steps.work()
    assert first == successor
    assert await steps.ended() == {"dead_letter": 1, "completed": 1}


async def test_a_step_goes_on_from_the_last_of_several_redrives(steps: Steps) -> None:
    await steps.submit("ab")
    await steps.work(bad=("a",))
    second = await steps.redrive("a")
    await steps.work(bad=(second,))
    third = await steps.redrive(second)
    await steps.work()
    assert await steps.retry() == 1
    (step,) = await steps.work()
    (view,) = await steps.queue.service.get_jobs([step])
    assert view is not None
    assert [need.job_id for need in view.header.needs] == [third]


async def test_a_step_whose_need_failed_again_as_a_redrive_does_not_run(steps: Steps) -> None:
    await steps.submit("ab")
    await steps.work(bad=("a",))
    second = await steps.redrive("a")
    await steps.work(bad=(second,))
    assert await steps.retry() == 1
    assert await steps.work() == []
    assert await steps.ended() == {"dead_letter": 1, "failed": 1}


async def test_a_step_that_an_earlier_retry_did_not_reach_goes_on_from_that_retry(steps: Steps) -> None:
    """The first retry is cancelled after the first of its parts."""
    await steps.submit("ab")
    await steps.work(bad=("a",))
    desk = steps.queue.service.batches
    desk.retries.at_once = 1
    carry_out = desk.retries._carry_out

    def then_cancel(*args: object) -> object:
        committed = carry_out(*args)  # type: ignore[arg-type]
        desk.retries.overrule(BatchCall("chain", "cancel"))
        return committed

    desk.retries._carry_out = then_cancel  # type: ignore[assignment,method-assign]
    assert await steps.retry() == 1
    desk.retries._carry_out = carry_out  # type: ignore[method-assign]
    assert len(await steps.work()) == 1
    assert await steps.retry() == 1
    assert len(await steps.work()) == 1
    assert await steps.ended() == {"completed": 2}


@pytest.mark.parametrize("outcome", [failed("a"), failed("a", failure=final())])
async def test_a_job_that_was_retried_with_its_batch_names_its_successor(steps: Steps, outcome: object) -> None:
    await steps.submit("a")
    await steps.queue.claim()
    await steps.queue.exchange(outcome, slots=0)  # type: ignore[arg-type]
    assert await steps.retry() == 1
    (successor,) = steps.queue.service._engine.core.live
    await steps.client.start()
    info = await steps.client.get_job_status("a")
    assert info is not None
    assert (info.status, info.successor) == ("failed", successor)
    await steps.client.stop()


async def test_more_redrives_than_are_followed_may_go_on_behind_the_last_one_seen(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(successors, "MOST_STEPS", 2)
    await steps.submit("a")
    await steps.work(bad=("a",))
    last = "a"
    for _ in range(3):
        last = await steps.redrive(last)
        await steps.work(bad=(last,))
    assert (await steps.queue.service.dead_letters._successors.living(["a", last]))[0] == {"a"}


@pytest.mark.parametrize("calls", [[["redrive", _TRY]], [["redrive"], [_TRY]], [[_TRY], ["redrive"]]])
async def test_a_try_that_stays_after_its_deletion_names_no_redrive_that_is_gone(
    queue: ServiceHarness, calls: list[list[str]]
) -> None:
    for job_id in (_TRY, next_try_of(_TRY)):
        jobs = [submission(job_id, header(max_retries=0, batch_id=job_id))]
        assert await queue.service.submit([SubmitGroup(jobs, batch=BatchSpec(job_id))]) == [None]
        await queue.exchange(*map(failed, await queue.claim(4)), slots=0)
    again = replace(header(max_retries=0), redriven_from=_TRY, idempotency_key="redrive")
    assert await queue.service.submit([group(submission("redrive", again))]) == [None]
    await queue.exchange(*map(failed, await queue.claim(4)), slots=0)
    for ids in calls:
        assert await queue.service.dead_letters.delete(ids) == ids
    view = await queue.view(_TRY)
    assert (view.status, view.successor) == ("failed", "")
    assert not queue.journal.states(["redrive"])
