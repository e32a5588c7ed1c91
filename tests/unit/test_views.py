"""What the queue shows of itself."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import msgspec
import pytest

from aiqueue.errors import JobCancelled, RateLimited
from aiqueue.protocol import Event, Failure, JobView
from aiqueue.results import encode_result
from aiqueue.testing.jobs import header, result
from aiqueue.views import Cancellation, JobInfo, decode_stats, encode_json, event_info, job_info, moment, readable_info
from tests.tools.queue_harness import QueueHarness

LIMITED = RateLimited("Provider sim: 429", status=429, retry_after_s=7.0, request_id="req-1").to_failure()


def view(status: str = "completed", **fields: object) -> JobView:
    made = JobView("a", header(tags=("t",), batch_id="b"), status, 3_000)
    made.header.created_at = 100.0
    made.header.metadata = b'{"user":7}'
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def event(status: str = "completed", **fields: object) -> Event:
    made = Event(
        7, f"job:{status}", 102.5, "a", "me", status, "t", "sim", "m", 2, 2, 100.0, 101.0, 3_000, "b", "w", since=100.0
    )
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_a_completed_job_shows_its_result_and_whether_it_was_in_time() -> None:
    info = job_info(view(started_at=101.0, finished_at=102.5, result=encode_result(result()), attempt=2, retries=1))
    assert info.result == result()
    assert info.error is None
    assert (info.priority, info.attempt, info.retry_count, info.batch_id) == ("medium", 2, 1, "b")
    assert (info.tags, info.metadata) == (("t",), {"user": 7})
    assert info.created_at == datetime.fromtimestamp(100.0, UTC)
    assert info.sla_compliance is not None
    assert (info.sla_compliance.met, info.sla_compliance.target_ms, info.sla_compliance.actual_ms) == (
        True,
        3_000,
        2_500.0,
    )


@pytest.mark.parametrize(("finished_at", "met"), [(103.0, True), (103.001, False)])
def test_a_job_is_in_time_up_to_its_sla(finished_at: float, met: bool) -> None:
    compliance = job_info(view(finished_at=finished_at)).sla_compliance
    assert compliance is not None
    assert compliance.met is met


def test_a_failed_job_shows_its_error_and_can_raise_it() -> None:
    info = job_info(view("failed", failure=LIMITED))
    assert info.error is not None
    assert (info.error.kind, info.error.status, info.error.request_id) == ("rate_limited", 429, "req-1")
    error = info.exception()
    assert isinstance(error, RateLimited)
    assert (str(error), error.status, error.request_id) == ("Provider sim: 429", 429, "req-1")
    assert info.sla_compliance is None


def test_a_job_without_an_error_has_nothing_to_raise() -> None:
    assert job_info(view()).exception() is None


def test_a_queued_job_shows_no_times_it_does_not_have() -> None:
    info = job_info(view("queued"))
    assert (info.started_at, info.finished_at, info.run_at, info.worker_id) == (None, None, None, None)
    assert job_info(view("scheduled", run_at=110.0)).run_at == datetime.fromtimestamp(110.0, UTC)


def test_an_event_shows_the_job_as_it_was() -> None:
    info = event_info(event(result=encode_result(result())))
    assert (info.job_id, info.status, info.attempt, info.worker_id, info.batch_id) == ("a", "completed", 2, "w", "b")
    assert info.result == result()
    assert info.finished_at == datetime.fromtimestamp(102.5, UTC)
    assert info.sla_compliance is not None
    assert info.sla_compliance.actual_ms == 2_500.0


@pytest.mark.parametrize("status", ["queued", "processing", "scheduled", "cancelling"])
def test_an_event_that_is_no_end_has_no_end_time(status: str) -> None:
    info = event_info(event(status))
    assert info.finished_at is None
    assert info.sla_compliance is None


def test_a_cancelled_event_can_raise_that_it_was() -> None:
    failure = Failure("cancelled", "Job was cancelled")
    assert isinstance(event_info(event("cancelled", failure=failure)).exception(), JobCancelled)


def test_json_is_camel_case_and_leaves_out_what_is_not_there() -> None:
    shown = msgspec.json.decode(encode_json(job_info(view("queued"))))
    assert set(shown) == {
        *("jobId", "status", "priority", "type", "provider", "model", "createdAt"),
        *("batchId", "tags", "metadata"),
    }
    assert shown["createdAt"] == "1970-01-01T00:01:40Z"
    assert msgspec.json.decode(encode_json(job_info(view())), type=JobInfo) == job_info(view())


def test_the_beginning_of_the_epoch_stands_for_not_yet() -> None:
    assert moment(0.0) is None
    assert moment(1.0) == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


def test_a_cancellation_is_true_if_it_did_something() -> None:
    assert Cancellation(cancelled=True, status="cancelling")
    assert not Cancellation(cancelled=False, status="completed")


def test_statistics_survive_their_encoding() -> None:
    from aiqueue.service.statistics import RecentTimes, collect

    queue = QueueHarness()
    queue.submit("a", "b")
    queue.claim()
    stats = collect(queue.engine.core, RecentTimes(), now=queue.clock.now())
    assert decode_stats(msgspec.msgpack.encode(stats)) == stats
    assert msgspec.json.decode(encode_json(stats))["adapter"]["workerPoolStats"]["busyWorkers"] == 1


@pytest.mark.parametrize("seconds", [1e300, 253_402_300_800.0, 253_402_300_799.99, -1e300, -62_135_596_801.0])
def test_a_time_that_no_datetime_can_say_is_shown_as_the_nearest_that_can(seconds: float) -> None:
    shown = moment(seconds)
    assert shown is not None
    assert shown.year == (9999 if seconds > 0 else 1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -1e300, 1e18, -1.0, 5e-324])
@pytest.mark.parametrize("name", ["created_at", "started_at", "finished_at", "run_at", "header.run_at"])
@pytest.mark.parametrize("status", ["completed", "scheduled", "failed"])
def test_a_time_that_is_none_fails_no_list_and_hides_no_result(status: str, name: str, value: float) -> None:
    broken = view(status, result=encode_result(result()) if status == "completed" else b"")
    holder = broken if name in {"started_at", "finished_at", "run_at"} else broken.header
    setattr(holder, name.removeprefix("header."), value)
    info = readable_info(broken)
    assert (info.job_id, info.status, info.result) == ("a", status, result() if status == "completed" else None)
    encode_json(info)


@pytest.mark.parametrize("level", [-1, -99, 4, 99, 2**62])
def test_a_level_that_does_not_exist_is_the_error_of_its_own_job_in_a_list(level: int) -> None:
    broken = view()
    broken.header.level = level
    info = readable_info(broken)
    assert info.error is not None
    assert info.error.kind == "record_unreadable"
    assert "job a" in info.error.message
    assert str(level) in info.error.message
    with pytest.raises(ValueError, match=str(level)):
        job_info(broken)
