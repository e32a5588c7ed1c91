"""Groups in line and commits under way: however many there are, each turn looks at few, and the order stays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from aiqueue.engine.effects import Rows
from aiqueue.protocol import SubmitGroup
from aiqueue.service.asked import Answer, Asked
from aiqueue.service.commits import CommitPipeline, Committed
from aiqueue.service.line import Line
from aiqueue.service.rounds import Rounds
from aiqueue.testing.jobs import submission
from aiqueue.waiting import at_once
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns, until


class Ids(Set[str]):
    """Ids, and how often one of them was gone through."""

    walked = 0

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = frozenset(ids)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._ids

    def __iter__(self) -> Iterator[str]:
        Ids.walked += len(self)
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count how often the ids of groups in line are gone through."""
    asked = Rounds._asked

    def with_ids(rounds: Rounds, sent: SubmitGroup, answered: asyncio.Future[Answer]) -> Asked:
        one = asked(rounds, sent, answered)
        one.ids = Ids(one.ids)
        return one

    monkeypatch.setattr(Rounds, "_asked", with_ids)
    monkeypatch.setattr(Ids, "walked", 0)


def keyed(job_id: str, *more: str, again: bool = False) -> SubmitGroup:
    """Return jobs with a key."""
    jobs = [submission(each) for each in (job_id, *more)]
    jobs[0].header = replace(jobs[0].header, idempotency_key=f"key of {job_id}")
    return SubmitGroup(jobs, again)


async def hold(queue: ServiceHarness) -> asyncio.Task[object]:
    """Let the disk hang with one commit under way; return the submit that waits for it."""
    queue.service._ticker.close()
    queue.memory.hold()
    slow = asyncio.create_task(queue.submit("in the way"))
    await until(queue.memory.held.is_set)
    return slow


@pytest.mark.usefixtures("counted")
async def test_large_lists_that_wait_for_a_later_round_are_not_gone_through_in_each(queue: ServiceHarness) -> None:
    lists, count = 12, 1_100
    sent = [keyed(f"c{n}", *(f"c{n}-{at}" for at in range(1, count))) for n in range(lists)]
    assert await queue.service.submit(sent) == [None] * lists
    assert Ids.walked <= 3 * lists * count


@pytest.mark.usefixtures("counted")
async def test_groups_that_wait_for_the_disk_are_not_gone_through_for_each_that_comes(queue: ServiceHarness) -> None:
    count, later = 200, 20
    slow = await hold(queue)
    live = queue.service._engine.core.live
    first = asyncio.create_task(queue.service.submit([keyed(f"j{n}") for n in range(count)]))
    await until(lambda: len(live) == count + 1)
    again = asyncio.create_task(queue.service.submit([keyed(f"j{n}", again=True) for n in range(count)]))
    await until(lambda: len(queue.service._intake._rounds._line._stay) == count)
    Ids.walked = 0
    others = []
    for n in range(later):
        others.append(asyncio.create_task(queue.service.submit([keyed(f"m{n}")])))
        await until(lambda n=n: len(live) == count + 2 + n)  # type: ignore[misc]
    assert Ids.walked <= 3 * later + count
    queue.memory.release()
    assert await again == [None] * count
    await asyncio.gather(slow, first, *others)


async def test_many_commits_under_way_are_gone_through_in_parts(
    queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 3_000
    slow = await hold(queue)
    live = queue.service._engine.core.live
    tasks = [asyncio.create_task(queue.submit(f"j{n}")) for n in range(count)]
    await until(lambda: len(live) == count + 1)
    looked = [0]

    class Looked(list[Rows]):
        def __iter__(self) -> Iterator[Rows]:
            for rows in super().__iter__():
                looked[0] += 1
                yield rows

    watched = CommitPipeline.watched

    @contextmanager
    def counting(commits: CommitPipeline) -> Iterator[Sequence[Rows]]:
        with watched(commits) as rows:
            found = commits._watched[-1] = Looked(rows)
            try:
                yield found
            finally:
                commits._watched = [other for other in commits._watched if other is not found]

    monkeypatch.setattr(CommitPipeline, "watched", counting)
    call = asyncio.create_task(queue.service.submit([keyed("k")]))
    steps = [0]
    while len(live) < count + 2:
        await turns(1)
        steps.append(looked[0])
    assert looked[0] >= count
    assert max(after - before for before, after in pairwise(steps)) <= 1_000 + 1
    queue.memory.release()
    await asyncio.gather(slow, call, *tasks)


class PlainLine:
    """As ``Line``, but each time all groups are compared with all before them."""

    def __init__(self) -> None:
        self.waiting: list[Asked] = []

    def join(self, groups: Iterable[Asked]) -> None:
        self.waiting += groups

    def put_back(self, groups: Sequence[Asked], settled: Committed) -> None:
        for one in groups:
            one.after = settled
        self.waiting[:0] = groups

    def take(self, most_bytes: int) -> list[Asked]:
        taken: list[Asked] = []
        left: list[Asked] = []
        ahead: set[str] = set()
        for one in self.waiting:
            if one.answered.done():
                continue
            is_free = one.after is None or one.after.done()
            if is_free and len(taken) < most_bytes and not one.is_behind(ahead):
                taken.append(one)
            else:
                left.append(one)
                ahead |= one.ids | one.names
        self.waiting = left
        return taken


names = st.frozensets(st.sampled_from("abcd"), max_size=2)
join = st.tuples(st.just("join"), names, names, names, st.booleans())
back = st.tuples(st.just("back"), st.integers(0, 3))
others = st.tuples(st.sampled_from(["settle", "cancel", "take", "take"]), st.integers(0, 9))


@settings(deadline=None)
@given(script=st.lists(st.one_of(join, join, back, others), max_size=30))
def test_a_line_gives_out_the_groups_that_are_behind_no_other(script: list[tuple[object, ...]]) -> None:
    assert asyncio.run(given_out(script, plain=False)) == asyncio.run(given_out(script, plain=True))


async def given_out(script: Sequence[tuple[object, ...]], *, plain: bool) -> list[list[int]]:
    """Return which groups a line gives out at each take."""
    loop, line = asyncio.get_running_loop(), PlainLine() if plain else Line(lambda: None)
    numbers: dict[Asked, int] = {}
    commits: list[Committed] = []
    out: list[list[int]] = []
    taken: list[Asked] = []
    for what, *how in script:
        if what == "join":
            ids, keys, needs, is_large = how
            one = Asked(SubmitGroup([]), loop.create_future(), ids, keys, needs, 1, is_large)  # type: ignore[arg-type]
            numbers[one] = len(numbers)
            line.join([one])
        elif what == "back":
            if again := taken[: how[0]]:  # type: ignore[misc]
                commits.append(loop.create_future())
                line.put_back(again, commits[-1])
            taken = []
        elif what == "settle":
            for commit in commits[how[0] :]:  # type: ignore[misc]
                if not commit.done():
                    commit.set_result(None)
        elif what == "cancel":
            for one in list(numbers)[how[0] :: 3]:  # type: ignore[misc]
                one.answered.cancel()
        else:
            found = line.take(2)
            taken = found if isinstance(found, list) else at_once(found)
            out.append([numbers[one] for one in taken])
        await turns(2)
    return out
