"""Groups in line and commits under way: however many there are, each turn looks at few, and the order stays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, KeysView, Sequence, Set
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from aiqueue.engine.effects import JobRows, Rows
from aiqueue.protocol import SubmitGroup
from aiqueue.service.asked import Answer, Asked
from aiqueue.service.commits import CommitPipeline, Committed
from aiqueue.service.line import Line
from aiqueue.service.next_tries import accepted_tries
from aiqueue.service.rounds import Rounds
from aiqueue.testing.jobs import submission
from aiqueue.waiting import at_once
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns, until


class Ids(Set[str]):
    """As a dict's view of the ids of a large group, and how often one of them was gone through."""

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

    def isdisjoint(self, other: Iterable[object]) -> bool:
        """As a view does, go through the smaller one of two sets; a set that is asked about a view walks all of it."""
        assert isinstance(other, Set)
        few, many = sorted((self, other), key=len)
        return not any(name in many for name in few)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count how often the ids of large groups are gone through."""
    asked = Rounds._asked

    def with_ids(rounds: Rounds, sent: SubmitGroup, answered: asyncio.Future[Answer]) -> Asked:
        one = asked(rounds, sent, answered)
        if one.is_large:
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


async def test_groups_that_wait_for_the_disk_are_not_gone_through_for_each_that_comes(
    queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, later, compared = 200, 20, [0]
    is_behind = Asked.is_behind

    def counting(one: Asked, names: Set[str]) -> bool:
        compared[0] += 1
        return is_behind(one, names)

    slow = await hold(queue)
    live = queue.service._engine.core.live
    first = asyncio.create_task(queue.service.submit([keyed(f"j{n}") for n in range(count)]))
    await until(lambda: len(live) == count + 1)
    again = asyncio.create_task(queue.service.submit([keyed(f"j{n}", again=True) for n in range(count)]))
    await until(lambda: len(queue.service._intake._rounds._line._stay) == count)
    monkeypatch.setattr(Asked, "is_behind", counting)
    others = []
    for n in range(later):
        others.append(asyncio.create_task(queue.service.submit([keyed(f"m{n}")])))
        await until(lambda n=n: len(live) == count + 2 + n)  # type: ignore[misc]
    assert compared[0] <= 3 * later
    queue.memory.release()
    assert await again == [None] * count
    await asyncio.gather(slow, first, *others)


class CountedId(str):
    """An id, and how often one was looked for in a set: a view that is walked looks for each of its own."""

    looked_for = 0

    def __hash__(self) -> int:
        CountedId.looked_for += 1
        return super().__hash__()


def large(count: int) -> KeysView[str]:
    """Return the ids of a large group."""
    return dict.fromkeys(CountedId(f"c{n}") for n in range(count)).keys()


@pytest.mark.parametrize("needs", [frozenset[str](), frozenset({"other"})])
async def test_a_small_group_behind_a_large_one_is_compared_by_its_own_few_names(needs: frozenset[str]) -> None:
    loop, line = asyncio.get_running_loop(), Line(lambda: None)
    list_ = Asked(SubmitGroup([]), loop.create_future(), large(1_000), {"key of c"}, frozenset(), 1, True)
    line.put_back([list_], loop.create_future())
    small = Asked(SubmitGroup([]), loop.create_future(), {"m"}, {"key of m"}, needs, 1, False)
    same_key = Asked(SubmitGroup([]), loop.create_future(), {"n"}, {"key of c"}, needs, 1, False)
    same_id = Asked(SubmitGroup([]), loop.create_future(), {"c7"}, {"key of o"}, needs, 1, False)
    line.join([small, same_key, same_id])
    CountedId.looked_for = 0
    assert at_once(line.take(10)) == [small]
    assert CountedId.looked_for < 100


def test_the_next_tries_of_a_few_jobs_are_looked_for_in_a_large_list_that_is_under_way() -> None:
    rows = Rows(lists=[JobRows(1, large(1_000), [], [])])
    CountedId.looked_for = 0
    assert accepted_tries({"a": "c7", "b": "other"}, [rows]) == {"a"}
    assert CountedId.looked_for < 100


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
