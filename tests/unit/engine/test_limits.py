"""How many jobs may wait, and that a group beyond that leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace

from aiqueue.errors import QueueFull
from aiqueue.levels import LEVELS
from aiqueue.protocol import Refusal
from aiqueue.testing.jobs import completed, group
from tests.tools.queue_harness import POLICY, QueueHarness

URGENT, HIGH, MEDIUM, LOW = LEVELS


def limited(max_depth: int | None = None, **by_level: int) -> QueueHarness:
    return QueueHarness(
        replace(POLICY, max_depth=max_depth, max_level_depth=tuple(by_level.get(level) for level in LEVELS))
    )


def is_full(reply: Refusal | None) -> bool:
    return reply is not None and reply.kind == QueueFull.kind


def test_a_queue_takes_as_many_as_its_limit_and_says_when_to_try_again() -> None:
    queue = limited(3)
    assert queue.submit("a", "b", "c") == [None]
    (refusal,) = queue.submit("d")
    assert refusal is not None
    assert (refusal.kind, 0 < refusal.retry_after_s <= 120) == (QueueFull.kind, True)
    assert "3 jobs wait, 3 may" in refusal.message


def test_nothing_of_a_group_that_does_not_fit_is_accepted() -> None:
    queue = limited(3)
    queue.submit("a", "b")
    before, events = queue.engine.fingerprint(), len(queue.events)
    (refusal,) = queue.submit("c", "d", batch_id="batch", expires_in_ms=5_000, fail_fast=True)
    assert is_full(refusal)
    assert queue.engine.fingerprint() == before
    assert len(queue.events) == events
    assert queue.submit("c") == [None]


def test_groups_of_one_call_are_refused_one_by_one() -> None:
    queue = limited(3)
    replies = queue.submit_groups(group("a", "b"), group("c", "d"), group("e"), group("f"))
    assert [is_full(reply) for reply in replies] == [False, True, False, True]


def test_only_jobs_that_nobody_runs_count() -> None:
    queue = limited(2)
    queue.submit("a", "b")
    queue.claim()
    assert queue.submit("c") == [None]
    assert is_full(queue.submit("d")[0])
    queue.cancel("b")
    assert queue.submit("d", delay_ms=60_000) == [None]
    assert is_full(queue.submit("e")[0]), "a job that waits for its time waits too"


def test_a_full_level_does_not_close_the_others() -> None:
    queue = limited(low=1)
    assert queue.submit("a", level=LOW) == [None]
    (refusal,) = queue.submit("b", level=LOW)
    assert refusal is not None
    assert refusal.message.startswith("level low is full")
    assert queue.submit("c", level=URGENT) == [None]


def test_a_group_of_several_levels_is_refused_whole_when_one_of_them_is_full() -> None:
    queue = limited(low=1, urgent=5)
    low, urgent, another = queue.submit_groups(group(), group(), group())
    assert (low, urgent, another) == (None, None, None)
    queue.submit("a", level=LOW)
    before = queue.engine.fingerprint()
    mixed = group("x", "y")
    mixed.jobs[0].header.level, mixed.jobs[1].header.level = URGENT.rank, LOW.rank
    assert is_full(queue.submit_groups(mixed)[0])
    assert queue.engine.fingerprint() == before


def test_what_comes_back_is_never_refused_even_if_the_queue_is_fuller_than_it_may_be() -> None:
    queue = limited(2)
    queue.submit("a", "b")
    queue.claim(2)
    queue.submit("c", "d")
    queue.lose(crashed=False)
    assert sum(queue.engine.core.waiting) == 4
    assert is_full(queue.submit("e")[0])
    assert queue.claim(4) == ["a", "b", "c", "d"]


def test_a_job_sent_again_to_a_full_queue_is_the_one_accepted_before() -> None:
    queue = limited(2)
    queue.submit("a", "b")
    queue.claim(2)
    queue.submit("c", "d")
    queue.lose()
    assert queue.submit_groups(group("a", "c"), journaled={"a": True, "c": True}) == [None]


def test_the_count_is_right_after_a_restart() -> None:
    queue = limited(3)
    queue.submit("a", "b", "c")
    queue.submit("later", delay_ms=1_000)
    queue.claim()
    queue.exchange(completed("a"), slots=0)
    queue.submit("later", delay_ms=1_000)
    queue.restart()
    assert queue.engine.core.waiting == [0, 0, 3, 0]
    assert is_full(queue.submit("d")[0])
