"""Submits whose groups are too much for one step together, and submits beside a drop: each step does a part."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from itertools import pairwise

import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall
from aiqueue.engine import Effects, QueueEngine, Submit
from aiqueue.engine.commands import Command
from aiqueue.engine.records import JobRecord
from aiqueue.protocol import BatchSpec, Need, SubmitGroup
from aiqueue.service.asked import Asked
from aiqueue.service.rounds import Rounds, _Found
from aiqueue.testing.jobs import group, header, submission
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns


def fan_in(job_id: str, needed: Sequence[str], *, again: bool = False, key: str = "") -> SubmitGroup:
    made = replace(header(batch_id=f"b-{job_id}"), needs=tuple(map(Need, needed)), on_error="include")
    made.idempotency_key = key
    return SubmitGroup([submission(job_id, made)], again, batch=BatchSpec(f"b-{job_id}", "fan_in"))


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the jobs and needs of each step that accepts any."""
    sizes: list[int] = []
    handle = QueueEngine.handle

    def counted(engine: QueueEngine, command: Command, *, now: float) -> Effects:
        if isinstance(command, Submit):
            sizes.append(sum(1 + len(job.header.needs) for sent in command.groups for job in sent.jobs))
        return handle(engine, command, now=now)

    monkeypatch.setattr(QueueEngine, "handle", counted)
    return sizes


@pytest.mark.parametrize("again", [False, True])
async def test_many_groups_of_one_call_are_accepted_some_in_each_step(
    queue: ServiceHarness, sizes: list[int], again: bool
) -> None:
    names = [f"n{n}" for n in range(300)]
    await queue.submit(*names)
    sizes.clear()
    sent = [fan_in(f"f{at}", names, again=again) for at in range(20)]
    assert await queue.service.submit(sent) == [None] * 20
    assert sum(sizes) == 20 * 301
    assert max(sizes) <= 1_000 + 301
    assert await queue.service.submit([replace(each, maybe_known=True) for each in sent]) == [None] * 20
    assert queue.service.stats().adapter.total_jobs == 320


async def test_many_large_groups_with_keys_are_accepted_some_in_each_step(
    queue: ServiceHarness, sizes: list[int]
) -> None:
    names = [f"n{n}" for n in range(1_100)]
    await queue.submit(*names)
    sizes.clear()
    sent = [fan_in(f"f{at}", names, key=f"key-{at}") for at in range(20)]
    assert await queue.service.submit(sent) == [None] * 20
    assert sum(sizes) == 20 * 1_101
    assert max(sizes) <= 2 * 1_101


async def test_what_a_large_graph_needs_is_not_asked_for_job_by_job_in_the_step_that_accepts_it(
    queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"n{n}" for n in range(3_000)]
    await queue.submit(*names)
    await queue.service.cancel(names)
    asked = [0]
    knows = QueueEngine.knows

    def counted(engine: QueueEngine, job_id: str) -> bool:
        asked[0] += 1
        return knows(engine, job_id)

    monkeypatch.setattr(QueueEngine, "knows", counted)
    submit = asyncio.create_task(queue.service.submit([fan_in("f", names, key="key")]))
    steps = [0]
    while not submit.done():
        await turns(1)
        steps.append(asked[0])
    assert submit.result() == [None]
    assert max(after - before for before, after in pairwise(steps)) <= 1_000


async def test_a_group_may_need_jobs_of_one_before_it_in_the_call(queue: ServiceHarness) -> None:
    names = [f"n{n}" for n in range(900)]
    sent = [group(*names[:450]), group(*names[450:]), fan_in("f", names), fan_in("g", [*names, "f"])]
    assert await queue.service.submit(sent) == [None] * 4
    assert await queue.service.batches.states(["f", "g"]) == ["blocked", "blocked"]


async def test_groups_of_a_call_are_refused_alone_and_keep_their_places(queue: ServiceHarness) -> None:
    names = [f"n{n}" for n in range(600)]
    await queue.submit(*names)
    sent = [fan_in("f", names), fan_in("g", [*names, "unknown"]), group("n0"), fan_in("f", names), fan_in("h", names)]
    kinds = [refusal and refusal.kind for refusal in await queue.service.submit(sent)]
    assert kinds == [None, "invalid_input", "duplicate_job", "duplicate_job", None]


async def test_a_large_submit_beside_a_drop_is_looked_through_in_parts(queue: ServiceHarness) -> None:
    of_open = header(batch_id="open")
    open_batch = SubmitGroup(
        [submission(f"o{n}", of_open) for n in range(2_500)], batch=BatchSpec("open", is_open=True)
    )
    assert await queue.service.submit([open_batch]) == [None]
    queue.service.batches._steer(BatchCall("open", "drop"))
    queue.service._ticker.close()
    looked_up = Looked(queue.service._drops._live)
    queue.service._drops._live = looked_up
    names = [f"c{n}" for n in range(5_000)]
    jobs = [
        submission(name, replace(header(batch_id="c"), index=at, needs=tuple(map(Need, names[at - 1 : at]))))
        for at, name in enumerate(names)
    ]
    for job in jobs[1:]:
        job.header.on_error = "fail"
    submit = asyncio.create_task(queue.service.submit([SubmitGroup(jobs, batch=BatchSpec("c", "chain"))]))
    looks = [0]
    while not submit.done():
        await turns(1)
        looks.append(looked_up.looks)
    assert submit.result() == [None]
    assert looked_up.looks >= 5_000
    assert max(after - before for before, after in pairwise(looks)) <= 1_001


class Looked(dict[str, JobRecord]):
    """The live jobs, and how often one was looked up."""

    def __init__(self, live: dict[str, JobRecord]) -> None:
        super().__init__(live)
        self.looks = 0

    def get(self, job_id: str, default: JobRecord | None = None) -> JobRecord | None:  # type: ignore[override]
        self.looks += 1
        return super().get(job_id, default)


class Walked(set[str]):
    """Job ids, and how many of them were copied or compared."""

    count = 0

    def _walk(self, count: int) -> None:
        Walked.count += count

    def __or__(self, other: Set[str]) -> set[str]:  # type: ignore[override]
        self._walk(len(self))
        return set(self) | set(other)

    __ror__ = __or__

    def __and__(self, other: Set[str]) -> set[str]:
        self._walk(min(len(self), len(other)))
        return set(self) & set(other)

    __rand__ = __and__


async def test_jobs_that_one_group_needs_are_not_gone_through_for_each_group_beside_it(
    queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"n{n}" for n in range(2_000)]
    await queue.submit(*names)
    read = Rounds._read

    def counted(rounds: Rounds, asked: Sequence[Asked]) -> _Found:
        found = read(rounds, asked)
        return found._replace(pending=Walked(found.pending))  # a copy of a set shows in no call of Python's

    monkeypatch.setattr(Rounds, "_read", counted)
    Walked.count = 0
    small = [fan_in(f"f{at}", [names[at]], key=f"key-{at}") for at in range(50)]
    assert await queue.service.submit([*small, fan_in("g", names, key="key-g")]) == [None] * 51
    assert Walked.count <= 2_000 + 50
