"""Accepting jobs."""

from __future__ import annotations

from aiqueue.errors import DuplicateJob
from aiqueue.protocol import Refusal, decode_header
from aiqueue.testing.jobs import completed, group, header, submission
from tests.tools.queue_harness import QueueHarness


def test_an_accepted_job_is_queued_and_journaled_with_its_payload(queue: QueueHarness) -> None:
    assert queue.submit_one(submission("a", header(tags=("t",)), b'{"x":1}')) is None
    stored = queue.journal.jobs(["a"], with_payload=True)["a"]
    assert (stored.state, stored.payload) == ("", b'{"x":1}')
    assert decode_header(stored.header).tags == ("t",)
    assert queue.engine.ready("pool", now=0.0) == 1
    assert queue.names("a") == ["submitted"]


def test_the_queue_sets_the_time_of_acceptance(queue: QueueHarness) -> None:
    queue.submit("a")
    assert queue.job("a").created_at == queue.clock.now()
    assert decode_header(queue.journal.jobs(["a"])["a"].header).created_at == queue.clock.now()


def test_an_id_that_is_live_is_refused(queue: QueueHarness) -> None:
    queue.submit("a")
    (refusal,) = queue.submit("a")
    assert refusal == Refusal(DuplicateJob.kind, str(DuplicateJob("a")), "a")
    assert queue.engine.core.counters.accepted == 1


def test_an_id_twice_in_one_group_is_refused_whole(queue: QueueHarness) -> None:
    (refusal,) = queue.submit("a", "b", "a")
    assert refusal is not None
    assert refusal.job_id == "a"
    assert not queue.is_live("b")
    assert queue.engine.ready("pool", now=0.0) == 0


def test_an_id_twice_in_one_call_is_refused_for_the_second_group_only(queue: QueueHarness) -> None:
    first, second = queue.submit_groups(group("a"), group("a", "b"))
    assert first is None
    assert second is not None
    assert (queue.is_live("a"), queue.is_live("b")) == (True, False)


def test_a_job_the_journal_knows_with_the_same_body_is_accepted_without_a_second_one(queue: QueueHarness) -> None:
    queue.submit("a")
    assert queue.submit_groups(group("a", "b"), journaled={"a": True}) == [None]
    assert queue.engine.core.counters.accepted == 2
    assert queue.names("a") == ["submitted"]


def test_a_job_the_journal_knows_with_another_body_refuses_its_whole_group(queue: QueueHarness) -> None:
    (refusal,) = queue.submit_groups(group("b", "a"), journaled={"a": False})
    assert refusal is not None
    assert (refusal.kind, refusal.job_id) == ("duplicate_job", "a")
    assert not queue.is_live("b")


def test_a_job_that_has_ended_is_not_run_again_when_it_is_sent_again(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    queue.exchange(completed("a"))
    assert queue.submit_groups(group("a"), journaled={"a": True}) == [None]
    assert queue.engine.ready("pool", now=0.0) == 0


def test_a_refused_group_leaves_no_trace(queue: QueueHarness) -> None:
    queue.submit("a")
    before = queue.engine.fingerprint()
    queue.submit("x", "a", batch_id="b-1")
    assert queue.engine.fingerprint() == before


def test_a_batch_is_counted_once_and_open_until_its_last_job_ends(queue: QueueHarness) -> None:
    queue.submit("a", "b", batch_id="batch-1")
    queue.submit("c")
    assert queue.engine.core.counters.batches == 1
    assert queue.engine.core.open_batches == {"batch-1": 2}
    queue.claim(3)
    queue.exchange(completed("a"))
    assert queue.engine.core.open_batches == {"batch-1": 1}
    queue.exchange(completed("b"))
    assert queue.engine.core.open_batches == {}
    assert queue.engine.core.counters.batches == 1


def test_an_empty_call_does_nothing(queue: QueueHarness) -> None:
    assert queue.submit_groups() == []
    assert queue.submit_groups(group()) == [None]
    assert queue.events == []


def test_a_job_of_a_provider_that_no_pool_serves_waits(queue: QueueHarness) -> None:
    queue.submit("a", provider="nobody")
    assert queue.claim() == []
    assert queue.is_live("a")
